"""What the trained methods share: a resumable loop, learning-rate schedules, the check for a finite loss."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rmt.data import EpochBatches
from rmt.errors import UserError
from rmt.resume import Progress, Row

Batch = tuple[int, Tensor, Tensor]
"""(epoch, inputs, labels)"""


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


class Learner:
    """Named parameters with torch's optimiser on them, which can be put on disk and taken up again.

    Subclasses add what computes a loss. `generator` is the one that the steps draw from; what they drew without it
    would not be repeated after an interruption.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator | None = None,
    ) -> None:
        self.parameters, self.optimiser, self.generator = dict(parameters), optimiser, generator
        self.steps = 0

    def descend(self, loss: Tensor, rate: float | None = None) -> float:
        """One update by the gradient of a loss, at a learning rate if one is given; returns the loss.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        value = finite(loss, self.steps + 1)
        if rate is not None:
            set_rate(self.optimiser, rate)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        return value

    def state(self) -> dict[str, Tensor]:
        """All that the remaining steps depend on: parameters, the optimiser's moments, the step, the generator."""
        state = {"step": torch.tensor(self.steps)}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        for name, parameter in self.parameters.items():
            state[f"parameter.{name}"] = parameter.detach().clone()
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if value is not None:
                    state[f"optimiser.{key}.{name}"] = value.clone()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken: the following steps give the same numbers as without the break."""
        self.steps = int(state["step"])
        if self.generator is not None:
            self.generator.set_state(state["generator"].cpu())
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"parameter.{name}"])
                moments = {
                    key.split(".", 2)[1]: value.clone()
                    for key, value in state.items()
                    if key.startswith("optimiser.") and key.split(".", 2)[2] == name
                }
                if moments:
                    self.optimiser.state[parameter] = {
                        # torch keeps the step count on the CPU, the moments beside the parameter.
                        key: value if key == "step" else value.to(parameter.device)
                        for key, value in moments.items()
                    }


def run(
    progress: Progress,
    learner: Learner,
    source: Callable[[int], Iterable[Batch]],
    step: Callable[[Batch], Row],
    stage: str = "train",
) -> list[Row]:
    """All steps of a stage, or those that an interrupted process has left; returns the curve, a row per step.

    Args:
        progress: where the state is kept.
        learner: what `step` updates.
        source: the batches from a given step on.
        step: one update; returns the step's row of the curve without its number.
        stage: names the state on disk where a method trains several times.

    Raises:
        Interrupted: the process was told to stop, and the state is on disk.
    """
    curve = progress.take_up(stage, learner)
    started = len(curve)
    for batch in source(started):
        row = step(batch)
        curve.append({"step": len(curve) + 1} | row)
        progress.after_step(stage, learner, curve)
    if len(curve) > started:
        progress.write(stage, learner, curve)
    return curve


def image_batches(
    images: Dataset[tuple[Tensor, int]], order: EpochBatches, workers: int = 0
) -> Callable[[int], Iterator[Batch]]:
    """uint8 images [B, 3, P, P] and labels [B] in the given order; workers only decode, they change nothing."""

    def source(start: int) -> Iterator[Batch]:
        loader = DataLoader(
            images, batch_sampler=order.after(start), num_workers=workers, prefetch_factor=4 if workers else None
        )
        for position, (pixels, labels) in enumerate(loader, start):
            yield position // order.steps_per_epoch, pixels, labels

    return source


def view_batches(views: Tensor, labels: Tensor, order: EpochBatches) -> Callable[[int], Iterator[Batch]]:
    """Cached features [B, d], one augmented view per image and epoch of [N, V, d], and labels [B]."""

    def source(start: int) -> Iterator[Batch]:
        for batch in islice(order, start, None):
            epoch, rows = batch[0][0], [index for _, index in batch]
            yield epoch, views[rows, epoch % views.shape[1]], labels[rows]

    return source
