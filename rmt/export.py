"""A tuned model as files that need nothing of this repository: `python -m rmt export`.

`NAME.safetensors` is the whole CLIP with what was learnt folded into its weights, as open_clip loads it;
`NAME.json` says what it is and how logits are computed; `NAME.head.safetensors`, where the method answers by more than
CLIP's own logits, holds the class text features and the tensors of the head.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import rmt.torchvision_import  # noqa: F401  (before open_clip)

import open_clip  # isort: skip

from rmt import backbones, methods
from rmt.errors import UserError, shown
from rmt.methods.zero_shot import LOGITS
from rmt.records import atomic, write_json
from rmt.restore import Restored

WORDS = (
    "f: image features [N, d] of the exported model, encode_image(images), not normalised; n(x): x / norm(x), row by "
    "row; text: {text}; every other name is a tensor of the head, or a number among chosen and hyperparameters"
)


class CannotExport(UserError):
    """An output that is there already, or has a name that open_clip would not read."""


@dataclass(frozen=True)
class Exported:
    """What was written: the model, its description, its head if it has one, and the line of Python that loads it."""

    model: Path
    description: Path
    head: Path | None
    load: str
    parameters: int


def _numbers(value: Tensor) -> list[float]:
    """Mean or deviation of the channels as they are written in decimals; CLIP's own digit by digit."""
    for usual in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD):
        if torch.allclose(value.flatten().cpu(), torch.tensor(usual), rtol=0, atol=1e-6):
            return list(usual)
    return [round(float(one), 7) for one in value.flatten()]


def load_line(restored: Restored, output: Path) -> str:
    """One line of Python that gives `model`, in eval mode, and `preprocess`, the test transform that the run used."""
    entry, clip = restored.run.record["backbone"], restored.clip
    words = [repr(entry["architecture"]), f"pretrained={str(output)!r}"]
    for name, value, usual in (
        ("image_mean", clip.mean, open_clip.OPENAI_DATASET_MEAN),
        ("image_std", clip.std, open_clip.OPENAI_DATASET_STD),
    ):
        if (numbers := _numbers(value)) != list(usual):
            words.append(f"{name}={tuple(numbers)}")
    if clip.resize != "shortest":
        words.append(f"image_resize_mode={clip.resize!r}")
    config = ""
    if entry["architecture"] == "tiny_clip":
        # Not `shown`, whose `~` Python does not expand.
        file, here = backbones.TINY_CONFIG, Path.cwd()
        config = f"open_clip.add_model_config({str(file.relative_to(here) if file.is_relative_to(here) else file)!r}); "
    create = f"open_clip.create_model_and_transforms({', '.join(words)})"
    return f"import open_clip; {config}model, _, preprocess = {create}; model.eval()"


def _head(restored: Restored) -> dict[str, Tensor]:
    """The tensors beside the exported weights; none where CLIP's own logits of its own prompts are the answer."""
    folded = restored.folded is not None
    below = restored.below
    if (folded or not restored.adapter) and (below is None or methods.folds(below.use)):
        return {}
    return {"text": restored.text, "raw_text": restored.raw_text} | ({} if folded else restored.adapter)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    # Copies, because safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(whole, temporary, metadata)


def export(restored: Restored, output: Path, force: bool = False) -> Exported:
    """Write a run as open_clip weights, with its head and its description beside them, the description last.

    Args:
        restored: the run.
        output: NAME.safetensors.
        force: replace files that are there.

    Raises:
        CannotExport: the name has another suffix, or a file is there and `force` is not given.
    """
    if output.suffix != ".safetensors":
        raise CannotExport(f"--output {output}: open_clip knows the format by the name; end it with .safetensors")
    description, head_file = output.with_suffix(".json"), output.with_suffix(".head.safetensors")
    there = [path for path in (output, description, head_file) if path.exists()]
    if there and not force:
        raise CannotExport(f"{there[0]}: there already; name another --output, or replace it with --force")
    run, task = restored.run, restored.task
    model = (restored.folded or restored.base.clip).model
    head = _head(restored)
    for path in there:
        path.unlink()
    state = model.state_dict()
    _write(output, state, {"format": "pt", "made_by": "python -m rmt export", "run": run.title})
    if head:
        _write(head_file, head, {"format": "pt"})
    load = load_line(restored, output)
    record = run.record
    text = (
        "the head's class text features [C, d], L2-normalised (raw_text: the same, not normalised)"
        if head
        else (
            "n(encode_text(prompts)) of the exported model, one prompt per class: the template with the class name in "
            "it, every _ of the name a space"
        )
    )
    write_json(
        description,
        {
            "made_by": "python -m rmt export",
            "title": run.title,
            "method": {name: record["method"][name] for name in ("use", "below", "label", "citation")},
            "architecture": record["backbone"]["architecture"],
            "load": load,
            "classes": list(task.classes),
            "template": restored.template,
            "image": {
                "pixels": restored.clip.pixels,
                "resize": restored.clip.resize,
                "mean": _numbers(restored.clip.mean),
                "std": _numbers(restored.clip.std),
            },
            "logits": LOGITS if restored.folded else methods.logits_equation(run.use),
            "words": WORDS.format(text=text),
            "logit_scale": task.logit_scale,
            "chosen": record["selection"]["chosen"],
            "hyperparameters": record["hyperparameters"],
            "weights": {"file": output.name, "sha256": _sha256(output)},
            "head": None
            if not head
            else {
                "file": head_file.name,
                "sha256": _sha256(head_file),
                "tensors": {name: list(tensor.shape) for name, tensor in head.items()},
            },
            "source": {
                "identity": record["identity"],
                "folder": shown(run.folder),
                "adapter_sha256": run.adapter_sha256,
                "below_sha256": record["provenance"]["below_sha256"],
                "weights_sha256": record["provenance"]["weights_sha256"],
                "sample_sha256": record["provenance"]["sample_sha256"],
                "commit": record["provenance"]["commit"],
                "command": record["provenance"]["command"],
            },
        },
    )
    parameters = sum(tensor.numel() for tensor in state.values())
    return Exported(output, description, head_file if head else None, load, parameters)


def report(restored: Restored, done: Exported) -> str:
    """What was written and how to load it, for the terminal."""
    size = done.model.stat().st_size / 1e6
    changed = restored.base.clip is not restored.clip or restored.folded
    what = "CLIP as tuned by" if changed else "CLIP's own weights, which were not changed by"
    lines = [f"{done.model}: {what} {restored.run.title} ({done.parameters:,} numbers, {size:,.1f} MB)"]
    if done.head:
        tensors = json.loads(done.description.read_text())["head"]["tensors"]
        shapes = ", ".join(f"{name} [{' x '.join(map(str, shape))}]" for name, shape in tensors.items())
        lines.append(f"{done.head}: the head: {shapes}")
    lines.append(f"{done.description}: classes, hashes, and how logits are computed")
    return "\n".join([*lines, "", "Load it with", "", f"  {done.load}"])
