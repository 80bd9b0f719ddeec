"""CLIP models by open_clip: building, weights and their hash, class text features, the image tower in batches."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

import rmt.torchvision_import  # noqa: F401  (before open_clip)

import open_clip  # isort: skip

from rmt import checkpoints, registry
from rmt.checkpoints import BackboneError
from rmt.towers import Tower

ROOT = Path(__file__).resolve().parent.parent
TINY_CONFIG = ROOT / "rmt" / "weights" / "tiny_clip.json"


@dataclass
class Clip:
    """A frozen CLIP: open_clip's model in eval mode without gradients, its tokenizer, and what records need."""

    name: str
    model: Any
    tokenizer: Any
    pixels: int
    mean: Tensor
    std: Tensor
    weights_sha256: str
    device: torch.device
    known_tokens: frozenset[int] | None = None
    resize: registry.Resize = "shortest"

    @property
    def transform(self) -> str:
        """Name of the test transform, as in the paths of packs."""
        return registry.transform_name(self.pixels, self.resize)

    @property
    def visual(self) -> nn.Module:
        """The image tower."""
        return self.model.visual

    @property
    def logit_scale(self) -> float:
        """Factor on cosines, exp of CLIP's learnt value (100 for OpenAI's)."""
        return float(self.model.logit_scale.exp())

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images [N, 3, P, P] to what the tower reads: float32, scaled to [0, 1], mean and std of CLIP."""
        return (images.to(self.device).float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features [B, d] of uint8 images [B, 3, P, P], not normalised, on the device."""
        return Tower(self.visual)(self.normalise(images))

    @torch.no_grad()
    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> Tensor:
        """Features [N, d] of uint8 images [N, P, P, 3], float32 on the CPU, not normalised.

        By the tower's own forward pass, not by the shorter one of `rmt.towers`, which rounds differently in the last
        bit: so open_clip, given the exported weights and the same batches, repeats every feature of a run to the bit.
        """
        found = []
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(np.array(pixels[start : start + batch_size]))
            found.append(self.visual(self.normalise(batch.permute(0, 3, 1, 2))).cpu())
        return torch.cat(found)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids [N, context length] of prompts.

        Raises:
            BackboneError: the model was trained on a small vocabulary and a prompt leaves it.
        """
        ids = self.tokenizer(list(prompts))
        if self.known_tokens is not None:
            for prompt, row in zip(prompts, ids.tolist(), strict=True):
                if not self.known_tokens.issuperset(row):
                    raise BackboneError(
                        f"{self.name} does not know every word of {prompt!r}: it was trained on 82 word pieces; "
                        "use a backbone with CLIP's full vocabulary"
                    )
        return ids.to(self.device)

    @torch.no_grad()
    def text_features(self, class_names: Sequence[str], template: str) -> Tensor:
        """L2-normalised class text features [C, d], float32 on the CPU; `_` in a class name becomes a space."""
        return functional.normalize(self.encode_text(class_names, template), dim=-1)

    @torch.no_grad()
    def encode_text(self, class_names: Sequence[str], template: str) -> Tensor:
        """Class text features [C, d] as the text tower gives them, not normalised."""
        prompts = [template.format(name.replace("_", " ")) for name in class_names]
        rows = [
            self.model.encode_text(self.tokens(prompts[start : start + 256])) for start in range(0, len(prompts), 256)
        ]
        return torch.cat(rows).cpu()


def _sha256_of_state(model: nn.Module) -> str:
    """Digest over names, shapes and bytes of all weights: equal models hash equally whatever file they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.cpu().contiguous().numpy()
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _tiny_state(path: Path, config: dict[str, Any]) -> tuple[dict[str, Tensor], frozenset[int]]:
    """The tiny CLIP's compact file as an open_clip state: float32, full token table, all positions.

    The file holds only the token rows and positions that pre-training used; the others are zero.
    """
    try:
        compact = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise BackboneError(
            f"{path}: missing; train it with `python -m data_prep.demo.pretrain --output {path}`"
        ) from error
    ids = compact.pop("token_ids").long()
    state = {name: tensor.float() for name, tensor in compact.items()}
    text = config["text_cfg"]
    table = torch.zeros(text["vocab_size"], text["width"])
    table[ids] = state["token_embedding.weight"]
    positions = torch.zeros(text["context_length"], text["width"])
    positions[: len(state["positional_embedding"])] = state["positional_embedding"]
    state |= {"token_embedding.weight": table, "positional_embedding": positions}
    return state, frozenset(ids.tolist()) | {0}


def _random(architecture: str) -> Any:
    """An architecture by open_clip's own classes, with random weights."""
    # It warns that the weights are random; they are filled in afterwards.
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(architecture, load_weights=False, pretrained_text=False)
    finally:
        logging.disable(logging.NOTSET)


def build_tiny() -> Any:
    """The tiny CLIP's architecture by open_clip's own classes, with random weights."""
    open_clip.add_model_config(TINY_CONFIG)
    return _random("tiny_clip")


def _tokenizer(name: str, architecture: str) -> Any:
    """open_clip's tokenizer of an architecture.

    Raises:
        BackboneError: it needs a package or a file that is not there.
    """
    try:
        return open_clip.get_tokenizer(architecture)
    except ImportError as error:
        raise BackboneError(
            f"{name}: its tokenizer needs the package {error.name}; install it with `pip install -e '.[siglip]'`"
        ) from error
    except Exception as error:  # transformers raises many kinds; all mean that the files are not there
        source = checkpoints.architecture_config(name, registry.BACKBONES[name])["text_cfg"].get("hf_tokenizer_name")
        raise BackboneError(
            f"{name}: the tokenizer of {source} cannot be fetched; where there is internet run `hf download {source} "
            "--include '*token*'`, then copy its folder from the cache there to the one here"
        ) from error


def _published(name: str, entry: registry.Backbone) -> tuple[Any, dict[str, Any]]:
    """(model with its weights, how it was trained) of a tag of open_clip's or a user's checkpoint."""
    facts = checkpoints.trained_as(name, entry)
    # Before the model is built, which for a large one takes a while.
    path = Path(entry.checkpoint) if entry.checkpoint else checkpoints.fetched(name, entry)
    model = _random(entry.architecture)
    checkpoints.load_into(model, name, entry, path)
    return model, facts


def load(name: str, device: torch.device | str = "cpu") -> Clip:
    """A registered backbone with its weights, frozen, in eval mode and float32.

    Raises:
        BackboneError: the weights cannot be had; the line says where to put them.
    """
    if name not in registry.BACKBONES:
        raise BackboneError(f"backbone {name!r} is not registered; registered: {', '.join(registry.BACKBONES)}")
    entry = registry.BACKBONES[name]
    known, facts = None, {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    if entry.architecture == "tiny_clip":
        model, tokenizer = build_tiny(), open_clip.get_tokenizer(entry.architecture)
        state, known = _tiny_state(ROOT / str(entry.pretrained), json.loads(TINY_CONFIG.read_text()))
        missing, unexpected = model.load_state_dict(state, strict=False)
        if unexpected or set(missing) - {"attn_mask"}:
            raise BackboneError(f"{entry.pretrained}: does not fit {TINY_CONFIG.name}: {missing or unexpected}")
    else:
        checkpoints.architecture_config(name, entry)
        tokenizer = _tokenizer(name, entry.architecture)
        model, facts = _published(name, entry)
    model = model.to(device).eval().requires_grad_(False)
    return Clip(
        name=name,
        model=model,
        tokenizer=tokenizer,
        pixels=entry.image_pixels,
        mean=torch.tensor(facts["mean"], device=device).view(1, 3, 1, 1),
        std=torch.tensor(facts["std"], device=device).view(1, 3, 1, 1),
        weights_sha256=_sha256_of_state(model),
        device=torch.device(device),
        known_tokens=known,
        resize=entry.resize,
    )
