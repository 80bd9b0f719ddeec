"""How long a training is: arithmetic that trainings follow and the cost model counts by. Standard library only."""

import math
from collections.abc import Mapping
from typing import Any


def steps_per_epoch(images: int, batch_size: int, drop_last: bool = True) -> int:
    """Batches in one epoch; as in Dassl, the last incomplete one is dropped when there is a full one."""
    full, rest = divmod(images, batch_size)
    return full if drop_last and full else full + bool(rest)


def planned_epochs(settings: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Epochs of a mask tuning: those of the settings, or as many as `minimum_travel` asks for.

    With a cosine per epoch the rates of E epochs sum to rate x steps per epoch x (E + 1) / 2, and Adam moves a score by
    at most about one rate per step; below the distance from initial score to threshold no mask can flip.
    """
    per_epoch = settings["learning_rate"] * steps_per_epoch
    # The tolerance keeps a ratio that is whole up to rounding from asking for one epoch more.
    needed = math.ceil(2 * settings["minimum_travel"] / per_epoch - 1 - 1e-9)
    return max(settings["epochs"], needed)
