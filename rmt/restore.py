"""A finished run back in memory, from what it has stored alone: record, adapter, and the run that it stands on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from rmt import backbones, methods, registry
from rmt.errors import shown
from rmt.features import Features
from rmt.methods import Answer, EvaluationSet, Foundation, Task
from rmt.runs import BadRun, Run, open_run


@dataclass(frozen=True)
class Restored:
    """A run that can answer again.

    `clip` is the frozen CLIP, `base` what the method stands on (the same, or what the run below made of it), `adapter`
    what was learnt, `task` what the method's answers may read; it holds no sample and no training images.
    """

    run: Run
    below: Run | None
    clip: backbones.Clip
    base: Foundation
    adapter: dict[str, Tensor]
    task: Task

    @cached_property
    def answer(self) -> Answer:
        """The method's answers."""
        return methods.answer(self.run.use, self.task, self.adapter, self.run.record["selection"]["chosen"])

    @torch.no_grad()
    def logits(self, pixels: np.ndarray) -> Tensor:
        """Logits [N, C] over the trained classes, on the CPU, of test-transformed images uint8 [N, P, P, 3]."""
        asked = EvaluationSet(
            name="given",
            classes=self.task.classes,
            template=self.task.template,
            read_pixels=lambda: pixels,
            read_features=lambda: self.base.clip.encode_images(pixels),
            read_text=lambda: self.task.raw_text,
        )
        return self.answer(asked).float().cpu()

    @cached_property
    def folded(self) -> Any | None:
        """The CLIP with what was learnt in its weights; None for a method that answers by more than CLIP's logits."""
        return methods.fold(self.run.use, self.base.clip, self.adapter)

    @cached_property
    def raw_text(self) -> Tensor:
        """Text features [C, d] of the trained classes by the run's own prompts, frozen or learnt, not normalised."""
        use, task = self.run.use, self.task
        prompts_below = self.below is not None and registry.METHODS[self.below.use].offers == "prompts"
        if registry.METHODS[use].offers == "prompts":
            settings = self.run.record["hyperparameters"]
            encode = methods.stand_on(use, self.base.clip, self.adapter, settings).encode_text
        elif self.folded is not None and not prompts_below:
            encode = self.folded.encode_text
        else:
            return task.raw_text
        return encode(task.classes, self.template)

    @property
    def template(self) -> str:
        """The prompt of the run: the dataset's, or the method's own."""
        return methods.prompt(self.run.use, self.task.template, self.task.hyperparameters)

    @property
    def text(self) -> Tensor:
        """The same, L2-normalised."""
        return functional.normalize(self.raw_text, dim=-1)


def _adapter(run: Run) -> dict[str, Tensor]:
    try:
        return load_file(run.adapter)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRun(f"{shown(run.adapter)}: damaged ({error}); fit the run again") from error


def _frozen(run: Run, device: torch.device | str, checkpoint: Path | None) -> backbones.Clip:
    """The backbone of a run, by its registered name or, for a user's own, by the record's entry.

    Raises:
        BackboneError: its weights cannot be had.
        BadRun: they are other weights than those that the run was fitted on.
    """
    name, entry = run.identity.backbone, run.record["backbone"]
    if name not in registry.SHIPPED:
        file = str(checkpoint) if checkpoint else entry["checkpoint"]
        registry.add_own_backbone(
            name,
            entry["architecture"],
            checkpoint=None if file is None else str(Path(file).expanduser()),
            pretrained=entry["pretrained"],
            pixels=entry["pixels"],
            resize=entry["resize"],
        )
    elif checkpoint:
        raise BadRun(f"--checkpoint: {name} is a registered backbone, whose weights have their place")
    clip = backbones.load(name, device)
    wanted = run.record["provenance"]["weights_sha256"]
    if clip.weights_sha256 != wanted:
        raise BadRun(
            f"{shown(run.folder)}: fitted on other weights of {name} than those found here (sha256 {wanted[:12]}, "
            f"found {clip.weights_sha256[:12]}); what was learnt fits those only"
        )
    return clip


def _nothing(what: str) -> Callable[[], Features]:
    def refuse() -> Features:
        raise AssertionError(f"an answer asked for {what}, which is not stored")

    return refuse


def restore(path: Path, device: torch.device | str = "cpu", checkpoint: Path | None = None) -> Restored:
    """A run that can answer again.

    Args:
        path: the run's folder, or its record.json.
        device: where the towers run.
        checkpoint: where the file of a user's own backbone lies now, if not where the record says.

    Raises:
        BadRun: it is no finished run, or it or what it stands on is not whole, or the weights are others.
        BackboneError: the weights cannot be had.
    """
    run = open_run(path)
    adapter, below = _adapter(run), run.below()
    clip = _frozen(run, device, checkpoint)
    base = Foundation(clip, clip.encode_text)
    if below is not None:
        base = methods.stand_on(below.use, clip, _adapter(below), below.record["hyperparameters"])
    classes, template = tuple(run.record["task"]["classes"]), run.record["task"]["template"]
    task = Task(
        sample=None,
        classes=classes,
        template=template,
        hyperparameters=run.record["hyperparameters"],
        logit_scale=clip.logit_scale,
        read_features=_nothing("the features of training images"),
        read_text=cache(lambda: base.encode_text(classes, template)),
        clip=base.clip,
        encode_text=base.encode_text,
    )
    return Restored(run, below, clip, base, adapter, task)
