"""The contract of a method, and the way from a registered name to its code.

A method is a module with one function, `tune(task) -> Tuned`. The task holds the few-shot sample of one run and what
the registry says the method needs; `Tuned.logits` answers for any evaluation set. A method never sees evaluation labels
and never scores itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rmt import registry
from rmt.data import Sample, generator_from, seed_from
from rmt.features import Features


@dataclass(frozen=True)
class EvaluationSet:
    """Images to answer for, without their labels: `pixels` uint8 [N, P, P, 3] and `features` [N, d], not normalised.

    Either is a function that computes or reads on demand.
    """

    name: str
    read_pixels: Callable[[], np.ndarray]
    read_features: Callable[[], Tensor]

    @cached_property
    def pixels(self) -> np.ndarray:
        """Test-transformed images."""
        return self.read_pixels()

    @cached_property
    def features(self) -> Tensor:
        """Image features of the task's tower."""
        return self.read_features()


@dataclass
class Task:
    """One run: dataset, shots, seed, effective hyperparameters, and access to features or images.

    `features` are those of the tower the task stands on (a mask-tuned one for a stack). `clip` and `images` (the folder
    of the training images) are None for methods that need features only.
    """

    sample: Sample | None
    classes: tuple[str, ...]
    template: str
    hyperparameters: Mapping[str, Any]
    logit_scale: float
    read_features: Callable[[], Features]
    clip: Any = None
    images: Path | None = None
    workers: int = 0

    @cached_property
    def features(self) -> Features:
        """Features of the sampled images and of the class prompts."""
        return self.read_features()

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
    """What tuning gives: answers, what was learnt, and what records and tables tell of it."""

    logits: Callable[[EvaluationSet], Tensor]
    adapter: dict[str, Tensor] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    trainable_parameters: int = 0
    images_seen: int = 0
    masks: tuple[int, int] | None = None
    """(masks, masks that are off), for methods that tune masks."""
    rule: Literal["fixed", "val", "test_oracle"] = "fixed"
    chosen: dict[str, Any] = field(default_factory=dict)
    candidates: int = 1


def implementation(use: str) -> Callable[[Task], Tuned]:
    """The `tune` function of a registered method."""
    return import_module(registry.METHODS[use].module).tune
