"""What the trained methods share: learning-rate schedules, the check for a finite loss, the training curve."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rmt.data import EpochBatches
from rmt.errors import UserError


class TrainingFailed(UserError):
    """A loss that is not finite; the run stops and leaves no record."""


def finite(loss: Tensor, step: int) -> float:
    """The loss as a number.

    Raises:
        TrainingFailed: it is NaN or infinite; the message has the step, counted from 1.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingFailed(f"the loss is {value} at step {step}; lower the learning rate or check the images")
    return value


def cosine(position: int, length: int) -> float:
    """Cosine decay factor at `position` of `length`: 1 at 0, 0 at `length`."""
    return 0.5 * (1.0 + math.cos(math.pi * position / length))


def warmup_cosine(epoch: int, epochs: int, rate: float, warmup_rate: float) -> float:
    """Dassl's schedule with one constant warm-up epoch: `warmup_rate` first, then the cosine, one epoch late."""
    return warmup_rate if epoch == 0 else rate * cosine(epoch - 1, epochs)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def batches(
    images: Dataset[tuple[Tensor, int]], order: EpochBatches, workers: int = 0
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epoch, uint8 images [B, 3, P, P], labels [B]) in the given order; workers only decode, they change nothing."""
    loader = DataLoader(images, batch_sampler=order, num_workers=workers, prefetch_factor=4 if workers else None)
    for step, (pixels, labels) in enumerate(loader):
        yield step // order.steps_per_epoch, pixels, labels
