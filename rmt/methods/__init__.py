"""The contract of a method, and the way from a registered name to its code.

A method is a module with two functions:

    tune(task) -> Tuned                  learn from the few-shot sample of one run
    answer(task, adapter, chosen)        -> a function from an evaluation set to logits

`Tuned.adapter` and `Tuned.chosen` are what is stored; every answer, in the run itself or years later, is given by
`answer` from these alone. A method never sees evaluation labels and never scores itself; the one exception are recipes
that their authors selected on the test set, registered with `oracle` under a name that ends in `_test_oracle`. A method
that others may stand on has a third function, `stand_on(clip, adapter, settings) -> Foundation`.

Three more names are optional. `fold(clip, adapter) -> clip` gives a copy with what was learnt inside its weights, for a
method that then answers by CLIP's own logits; `prompt(template, settings) -> template` is for one that gives the
classes other prompts than the dataset's; `LOGITS` is the equation of its logits in the names of its adapter's tensors,
for whoever uses an exported run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rmt import registry
from rmt.data import Sample, generator_from, seed_from
from rmt.features import Features
from rmt.resume import Progress

EncodeText = Callable[[Sequence[str], str], Tensor]
"""(class names, template) to class text features [C, d], not normalised, float32 on the CPU."""


@dataclass(frozen=True)
class Foundation:
    """What a method stands on: an image tower in a CLIP, and the text features of any classes."""

    clip: Any
    encode_text: EncodeText


@dataclass(frozen=True)
class EvaluationSet:
    """Images to answer for, without their labels: `pixels` uint8 [N, P, P, 3] and `features` [N, d], not normalised.

    `classes` and `template` are those of the set and may be others than the task's; `text` are their L2-normalised text
    features [C, d]. A method that is bound to the classes it was trained on always sees the task's classes here.
    """

    name: str
    classes: tuple[str, ...]
    template: str
    read_pixels: Callable[[], np.ndarray]
    read_features: Callable[[], Tensor]
    read_text: Callable[[], Tensor]

    @cached_property
    def pixels(self) -> np.ndarray:
        """Test-transformed images."""
        return self.read_pixels()

    @cached_property
    def features(self) -> Tensor:
        """Image features of the task's tower."""
        return self.read_features()

    @cached_property
    def text(self) -> Tensor:
        """L2-normalised text features [C, d] of the set's classes."""
        return functional.normalize(self.read_text(), dim=-1)


@dataclass(frozen=True)
class Oracle:
    """The test images with their labels [N]; only methods registered with `oracle` are given them."""

    read_features: Callable[[], Tensor]
    labels: Tensor

    @cached_property
    def features(self) -> Tensor:
        """Image features [N, d] of the task's tower, not normalised."""
        return self.read_features()


Answer = Callable[[EvaluationSet], Tensor]
"""Logits [N, C] for the images and classes of an evaluation set."""


@dataclass
class Task:
    """One run: dataset, shots, seed, effective hyperparameters, and access to features or images.

    `features` and `text` are those of what the task stands on (a mask-tuned tower, or learnt prompts, for a stack).
    `clip`, `encode_text` and `images` (the folder of the training images) are None for methods that need features only.
    `progress` keeps the state of long trainings. `oracle` is None but for methods whose name says `_test_oracle`.
    """

    sample: Sample | None
    classes: tuple[str, ...]
    template: str
    hyperparameters: Mapping[str, Any]
    logit_scale: float
    read_features: Callable[[], Features]
    read_text: Callable[[], Tensor]
    clip: Any = None
    encode_text: EncodeText | None = None
    images: Path | None = None
    workers: int = 0
    progress: Progress = field(default_factory=Progress)
    oracle: Oracle | None = None

    @cached_property
    def features(self) -> Features:
        """Features of the sampled images and of the class prompts."""
        return self.read_features()

    @cached_property
    def raw_text(self) -> Tensor:
        """Text features [C, d] of the task's classes as the text tower gives them."""
        return self.read_text()

    @cached_property
    def text(self) -> Tensor:
        """L2-normalised text features [C, d] of the task's classes."""
        return functional.normalize(self.raw_text, dim=-1)

    @property
    def shots(self) -> Sample:
        """The few-shot sample; only for methods that use one."""
        assert self.sample is not None, "this method was registered as using no few-shot sample"
        return self.sample

    @property
    def stream(self) -> str:
        """Names the run's randomness by (dataset, shots, seed): the same for every method."""
        return f"{self.shots.dataset} {self.shots.shots} {self.shots.seed}"

    def generator(self, purpose: str) -> torch.Generator:
        """A generator for one purpose of this run, independent of all others."""
        return generator_from(self.stream, purpose)

    def seed(self, purpose: str) -> int:
        """A seed for one purpose of this run."""
        return seed_from(self.stream, purpose)

    @cached_property
    def train_labels(self) -> Tensor:
        """Class indices of the training images."""
        return torch.tensor([label for _, label in self.shots.train])

    @cached_property
    def val_labels(self) -> Tensor:
        """Class indices of the few-shot validation images."""
        return torch.tensor([label for _, label in self.shots.val])


@dataclass
class Tuned:
    """What tuning gives: what was learnt, and what records and tables tell of it."""

    adapter: dict[str, Tensor] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    """What `rule` picked; JSON."""
    curve: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    trainable_parameters: int = 0
    images_seen: int = 0
    masks: tuple[int, int] | None = None
    """(masks, masks that are off), for methods that tune masks."""
    checkpoint: Literal["last", "best"] = "last"
    """Which step answers, for methods that train by steps: the last, or the one that `rule` picked."""
    rule: Literal["fixed", "val", "test_oracle"] = "fixed"
    candidates: int = 1


def tune(use: str, task: Task) -> Tuned:
    """Tune a registered method."""
    return import_module(registry.METHODS[use].module).tune(task)


def answer(use: str, task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """The answers of a registered method from what it learnt."""
    return import_module(registry.METHODS[use].module).answer(task, adapter, chosen)


def stand_on(use: str, clip: Any, adapter: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Foundation:
    """What a finished run of a registered method offers to the method stacked on it."""
    return import_module(registry.METHODS[use].module).stand_on(clip, adapter, settings)


def folds(use: str) -> bool:
    """Whether what a registered method learns can be folded into CLIP's weights."""
    return hasattr(import_module(registry.METHODS[use].module), "fold")


def fold(use: str, clip: Any, adapter: Mapping[str, Tensor]) -> Any | None:
    """A copy of the CLIP with what a run learnt folded into its weights; None for a method that cannot be folded."""
    return import_module(registry.METHODS[use].module).fold(clip, adapter) if folds(use) else None


def prompt(use: str, template: str, settings: Mapping[str, Any]) -> str:
    """The prompt that a registered method gives the classes instead of the dataset's, if it has one of its own."""
    own = getattr(import_module(registry.METHODS[use].module), "prompt", None)
    return template if own is None else own(template, settings)


def logits_equation(use: str) -> str:
    """How a registered method computes logits, as an equation; for lack of one, the first lines of its page."""
    module = import_module(registry.METHODS[use].module)
    return getattr(module, "LOGITS", None) or (module.__doc__ or "").partition("\n\n")[0]
