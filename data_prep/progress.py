"""The progress bar of long work: ten times a second on a terminal, twice a minute into a log."""

import sys
from typing import Any

from tqdm import tqdm


def bar(*items: Any, **settings: Any) -> tqdm:
    """`tqdm`, gone when it is done; `unit="B"` counts in powers of 1,000."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(*items, leave=False, unit_scale=settings.get("unit") == "B", mininterval=interval, **settings)
