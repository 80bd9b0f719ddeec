"""Interrupted fits: state kept on disk, taken up again, ending with the numbers of an uninterrupted run.

A fit has stages (most have one). While a stage runs, its state is written from time to time; when the process is told
to stop (SIGTERM, SIGUSR1 as Slurm's warning before the time limit, or Control-C) it is written after the step at hand
and the process ends with `Interrupted`. The files lie in a folder whose name is a digest of all that determines the
run's result, so another code, sample or setting never takes them up.
"""

import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from rmt.errors import UserError
from rmt.records import atomic

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

Row = dict[str, float]


class Interrupted(UserError):
    """The process was told to stop; what was reached is on disk."""

    status = 75
    """Sysexits' "temporary failure", which asks to be started again."""


class Learner(Protocol):
    """What can be interrupted: everything that changes from step to step, as tensors."""

    def state(self) -> dict[str, Tensor]:
        """All that the remaining steps depend on."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken."""


class Stop:
    """Whether this process has been told to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self, where: str) -> None:
        """Stop here if the process was told to.

        Raises:
            Interrupted: it was.
        """
        if self.signal is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.signal).name} {where}; run it again to go on")

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take the signals instead of dying of them, inside the block."""

        def take(number: int, frame: FrameType | None) -> None:
            self.signal = number

        before = {number: signal.signal(number, take) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Progress:
    """The state of one fit on disk. Without a folder nothing is kept, and nothing is taken up."""

    def __init__(self, folder: Path | None = None, seconds: float = 300.0, stop: Stop | None = None) -> None:
        """Args:
        folder: where the state lies; made when needed.
        seconds: a stage's state is written when the last writing is this long ago.
        stop: looked at after every step.
        """
        self.folder, self.seconds, self.stop = folder, seconds, stop or Stop()
        self._written = time.monotonic()

    def take_up(self, stage: str, learner: Learner) -> list[Row]:
        """The curve so far of a stage that was interrupted, its state loaded into the learner; empty for a new one."""
        path = self._path(stage)
        if path is None or not path.exists():
            return []
        try:
            with safetensors.safe_open(path, "pt") as file:
                curve = json.loads(file.metadata()["curve"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
            # Written whole or not at all, so this is damage from outside; the stage starts anew.
            path.unlink()
            return []
        learner.load_state(state)
        print(f"{path.parent}: goes on after step {len(curve)}", flush=True)
        return curve

    def after_step(self, stage: str, learner: Learner, curve: list[Row]) -> None:
        """Write the state if it is time; stop if the process was told to.

        Raises:
            Interrupted: after the state has been written.
        """
        told = self.stop.signal is not None
        if self.folder is not None and (told or time.monotonic() - self._written >= self.seconds):
            self.write(stage, learner, curve)
        if told:
            number = self.stop.signal or signal.SIGTERM
            raise Interrupted(
                f"stopped by {signal.Signals(number).name} after step {len(curve)}; run it again to go on"
            )

    def write(self, stage: str, learner: Learner, curve: list[Row]) -> None:
        """Write a stage's state, whole or not at all."""
        path = self._path(stage)
        if path is None:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.state().items()}
        with atomic(path) as temporary:
            save_file(tensors, temporary, {"curve": json.dumps(curve)})
        self._written = time.monotonic()

    def _path(self, stage: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{stage}.progress"
