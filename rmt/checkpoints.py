"""Weights of CLIP models: open_clip's tags in huggingface's cache, and a user's own files. One line for what is wrong.

open_clip knows for every tag where its file lies and how it was trained (activation, mean, deviation, resizing); that
is read here and compared with the registry, never written down twice.
"""

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rmt.torchvision_import  # noqa: F401  (before open_clip)

import open_clip  # isort: skip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME  # isort: skip
from open_clip.convert import convert_state_dict  # isort: skip
from open_clip.factory import load_state_dict  # isort: skip
from open_clip.model import convert_to_custom_text_state_dict  # isort: skip
from open_clip.pretrained import download_pretrained  # isort: skip

from rmt.errors import UserError
from rmt.registry import Backbone

OPENAI_FACTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files carry beside the weights, by which such a file is known."""


class BackboneError(UserError):
    """Weights that are missing or do not fit, or a prompt that the model cannot read; one line with the remedy."""


def architecture_config(name: str, entry: Backbone) -> dict[str, Any]:
    """open_clip's configuration of a backbone's architecture.

    Raises:
        BackboneError: open_clip has no such architecture.
    """
    config = open_clip.get_model_config(entry.architecture)
    if config is None:
        raise BackboneError(
            f"{name}: open_clip has no architecture {entry.architecture!r}; `python -c 'import open_clip; "
            "print(open_clip.list_models())'` prints all names"
        )
    return config


def trained_as(name: str, entry: Backbone) -> dict[str, Any]:
    """How the weights were trained: mean, std and the rest as open_clip's tag says; OpenAI's without a tag.

    Raises:
        BackboneError: open_clip has no such tag, or entry and open_clip disagree on activation, resizing or size.
    """
    config = architecture_config(name, entry)
    facts = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    size = config["vision_cfg"].get("image_size", 224)
    if size != entry.image_pixels:
        raise BackboneError(f"{name}: {entry.architecture} reads {size} pixels, not {entry.image_pixels}; set 'pixels'")
    if not entry.pretrained:
        return facts
    tag = open_clip.get_pretrained_cfg(entry.architecture, entry.pretrained)
    plain = open_clip.get_pretrained_cfg(entry.architecture.removesuffix("-quickgelu"), entry.pretrained)
    if not (tag or plain):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(entry.architecture)) or "none"
        raise BackboneError(
            f"{name}: open_clip has no tag {entry.pretrained!r} of {entry.architecture}; it has: {known}"
        )
    tag = tag or plain
    if bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        # open_clip only warns, and the model then runs with an activation that it was not trained with.
        wanted = entry.architecture.removesuffix("-quickgelu") + ("-quickgelu" if tag.get("quick_gelu") else "")
        raise BackboneError(
            f"{name}: the weights {entry.pretrained!r} were trained with another activation than "
            f"{entry.architecture} has; name the architecture {wanted!r}"
        )
    if tag["interpolation"] != "bicubic" or tag["resize_mode"] != entry.resize:
        raise BackboneError(
            f"{name}: the weights {entry.pretrained!r} were trained on images resized by {tag['interpolation']}, "
            f"{tag['resize_mode']}; bicubic with 'resize' {entry.resize!r} is what this backbone says, and only "
            "bicubic, shortest or squash, is offered"
        )
    return tag


def _cause(error: BaseException) -> str:
    """First line of an error without what is too long to read."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(". ")


def fetched(name: str, entry: Backbone) -> Path:
    """The file of a tag, from huggingface's cache or fetched into it.

    Raises:
        BackboneError: it is in no cache and cannot be fetched; the line says which file, and where to put it.
    """
    from huggingface_hub import constants

    tag = trained_as(name, entry)
    if not tag["hf_hub"]:
        try:
            return Path(download_pretrained(tag))
        except OSError as error:
            target = Path("~/.cache/clip").expanduser() / tag["url"].rsplit("/", 1)[-1]
            raise BackboneError(
                f"{name}: weights {target.name} are missing and cannot be fetched ({_cause(error)}); put "
                f"{tag['url']} at {target}"
            ) from error
    repository, file = os.path.split(tag["hf_hub"])
    try:
        # It looks for a safetensors file first, and in the cache before the network.
        return Path(download_pretrained(tag))
    except Exception as error:  # huggingface_hub raises many kinds; all mean that the file is not there
        cache = Path(constants.HF_HUB_CACHE)
        folder = f"models--{repository.replace('/', '--')}"
        offline = "offline mode" if constants.HF_HUB_OFFLINE else "no connection to huggingface.co, or no such file"
        raise BackboneError(
            f"{name}: weights {file or f'{HF_SAFE_WEIGHTS_NAME} (or {HF_WEIGHTS_NAME})'} of {repository} are not in "
            f"{cache} and cannot be fetched ({offline}); where there is internet run `hf download {repository} "
            f"{file or HF_SAFE_WEIGHTS_NAME}`, then copy the folder {folder} from its cache to {cache / folder}, or "
            "name a file of your own as 'checkpoint' in own_backbones"
        ) from error


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI publishes its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_state(name: str, path: Path, quick_gelu: bool) -> dict[str, Tensor]:
    """The weights of a file: safetensors, a state dict (plain, or `state_dict` of a training), OpenAI's TorchScript.

    Pickles are read with `weights_only`, so that a file cannot run code.

    Raises:
        BackboneError: the file is missing or not readable, or it is OpenAI's and the architecture lacks QuickGELU.
    """
    if not path.is_file():
        raise BackboneError(f"{name}: checkpoint {path} does not exist")
    try:
        if _is_torchscript(path):
            state = dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            openai = True
        else:
            state = load_state_dict(str(path), device="cpu", weights_only=True)
            openai = OPENAI_FACTS[0] in state
    except Exception as error:  # zip, pickle and safetensors each raise their own
        raise BackboneError(f"{name}: checkpoint {path} is not a file of weights ({_cause(error)})") from error
    if openai and not quick_gelu:
        raise BackboneError(
            f"{name}: checkpoint {path} is OpenAI's own, which was trained with QuickGELU; name the architecture with "
            "'-quickgelu' at its end"
        )
    return {key: value for key, value in state.items() if key not in OPENAI_FACTS}


def load_into(model: nn.Module, name: str, entry: Backbone, path: Path) -> None:
    """Fill a model with a file's weights, all of them and nothing else; positions are never interpolated.

    Raises:
        BackboneError: the file cannot be read, or does not fit the architecture.
    """
    quick_gelu = bool(architecture_config(name, entry).get("quick_gelu"))
    state = convert_state_dict(model, read_state(name, path, quick_gelu))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    with contextlib.suppress(KeyError, AttributeError):
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
        state["logit_bias"] = state["logit_bias"].reshape(model.logit_bias.shape)
    state.pop("text.transformer.embeddings.position_ids", None)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).split(": ", 1)[-1][:200]
        raise BackboneError(f"{name}: {path} does not fit {entry.architecture} ({reason})") from error
