"""comparisons.csv: one row per test. What `compare` writes, and tables, figures and pages read."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from math import nan
from pathlib import Path
from typing import Any, Literal

from reports import rows
from reports.cells import AVERAGE, Setting
from reports.rows import Kind

Scope = Literal["omnibus", "across", "within", "diagnostic", "published", "transfer", "stack_method", "stack_below"]

CONTROL_SCOPES = ("across", "within")
"""Scopes of the comparisons with the control."""

MARKS = {"better": "†", "worse": "‡"}
"""Significantly better or worse than the control; everything else has no mark."""

ARROWS = {"better": "↑", "worse": "↓"}
"""Significantly above or below something other than the control."""


@dataclass(frozen=True)
class Comparison:
    """One test. Differences, their bounds and the accuracies behind them are in percentage points.

    `scope` is "omnibus" (do the methods differ at all; `method` is "all", `family_size` the number of methods),
    "across" (unit: dataset), "within" (unit: test image), "diagnostic" (exact McNemar of one seed; uncorrected, no
    verdict) or "published" (against a number of the literature, see `reports.literature.compare`; no verdict). Not
    against the control are "transfer" (cross_dataset, against zero-shot), "stack_method" (a stack X+T against X) and
    "stack_below" (against T); each of them is across datasets where `dataset` is empty, else within it.
    `dataset` is empty unless the test is within one; `shots` 0 is the average over shot levels. `eval_set` may name a
    score of several evaluation sets (`reports.base_to_new`, `domain_shift`, `cross_dataset`).
    """

    scope: Scope
    family: str
    protocol: str
    backbone: str
    eval_set: str
    dataset: str
    shots: int
    seed: int | None
    method: str
    control: str
    n: int
    seeds: str
    """Seeds that the numbers are averaged over."""
    mean_difference: float
    """Method minus control, or minus what else `control` names."""
    median_difference: float
    low: float
    high: float
    interval: str
    test: str
    statistic: float
    p: float
    p_holm: float
    family_size: int
    smallest_p: float
    """The smallest p that the test can give at this n (or number of resamples)."""
    wins: int
    """Units on which the method is above the control."""
    ties: int
    losses: int
    effect: float
    """Matched-pairs rank-biserial correlation."""
    verdict: str

    @property
    def setting(self) -> Setting:
        """The setting that the test belongs to."""
        return Setting(self.protocol, self.backbone, self.eval_set)

    @property
    def mark(self) -> str:
        """Dagger, double dagger or nothing; arrows where the test is not against the control."""
        return (MARKS if self.scope in CONTROL_SCOPES else ARROWS).get(self.verdict, "")


_KINDS: dict[Any, Kind] = {int: "int", int | None: "int", float: "float"}
COLUMNS: dict[str, Kind] = {field.name: _KINDS.get(field.type, "text") for field in fields(Comparison)}
_NOTHING = {"text": "", "float": nan}


def write(path: Path, found: Iterable[Comparison]) -> None:
    """Write comparisons.csv."""
    rows.write(path, map(asdict, found), COLUMNS)


def read(path: Path) -> list[Comparison]:
    """Read comparisons.csv.

    Raises:
        FileNotFoundError: there is no such file.
        BadRecord: not a comparisons.csv.
    """
    found = []
    for row in rows.read(path, COLUMNS):
        # An empty field is an empty text, NaN, or no seed.
        values: dict[str, Any] = {
            name: _NOTHING.get(COLUMNS[name]) if value is None else value for name, value in row.items()
        }
        found.append(Comparison(**values))
    return found


class Comparisons:
    """Look-up of the tests of one setting."""

    def __init__(self, found: Iterable[Comparison], setting: Setting):
        """Keep what belongs to `setting`."""
        self._by_key: dict[tuple[str, str, int, str], Comparison] = {}
        self.diagnostics: list[Comparison] = []
        self.published: list[Comparison] = []
        for one in found:
            if one.setting == setting and one.scope == "diagnostic":
                self.diagnostics.append(one)
            elif one.setting == setting and one.scope == "published":
                self.published.append(one)
            elif one.setting == setting:
                self._by_key[one.scope, one.dataset, one.shots, one.method] = one

    def across(self, method: str, shots: int) -> Comparison | None:
        """The method against the control over datasets."""
        return self._by_key.get(("across", "", shots, method))

    def within(self, method: str, dataset: str, shots: int) -> Comparison | None:
        """The method against the control on one dataset."""
        return self._by_key.get(("within", dataset, shots, method))

    def get(self, scope: Scope, method: str, dataset: str, shots: int) -> Comparison | None:
        """Any test; `dataset` is empty for one across datasets."""
        return self._by_key.get((scope, dataset, shots, method))

    def omnibus(self, shots: int = AVERAGE) -> Comparison | None:
        """Whether the methods differ at all."""
        return self._by_key.get(("omnibus", "", shots, "all"))

    def family(self, scope: Scope, dataset: str, shots: int) -> list[Comparison]:
        """All comparisons that were corrected together."""
        return [one for key, one in self._by_key.items() if key[:3] == (scope, dataset, shots)]
