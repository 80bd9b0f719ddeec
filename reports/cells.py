"""Accuracies of one setting, cell by cell: what every table, figure and test starts from."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_prep import catalog
from reports.rows import Row
from rmt import registry
from rmt.plan import Plan

AVERAGE = 0
"""Stands for "average over the shot levels" where a number of shots is expected."""

VALIDATION = "val"
"""The evaluation set that is no result: settings were selected on it."""


@dataclass(frozen=True, order=True)
class Setting:
    """What is never mixed: protocol, backbone and evaluation set. Each has its own tables and its own tests."""

    protocol: str
    backbone: str
    eval_set: str

    def heading(self) -> str:
        """For example `few_shot, tiny CLIP, evaluation set test`."""
        return f"{self.protocol}, {registry.BACKBONES[self.backbone].label}, evaluation set {self.eval_set}"

    def slug(self) -> str:
        """For file names."""
        return f"{self.protocol}-{self.backbone}-{self.eval_set}"


def settings(plan: Plan, protocol: str | None = None, backbone: str | None = None) -> list[Setting]:
    """The settings of a benchmark in the order of its plan, of one protocol and backbone or of all."""
    return [
        Setting(one, name, eval_set)
        for one in plan.config["protocols"]
        if protocol in (None, one)
        for name in plan.config["backbones"]
        if backbone in (None, name)
        for eval_set in dict.fromkeys(
            eval_set for dataset in plan.trained_on(one) for eval_set in plan.evaluation_sets(one, dataset)
        )
    ]


def taking_part(plan: Plan, protocol: str) -> list[str]:
    """The planned methods that a protocol has runs of, in the order of the plan."""
    return [label for label in plan.methods if plan.takes_part(label, protocol)]


def figure_name(kind: str, setting: Setting, all_settings: Iterable[Setting]) -> str:
    """File name of a figure; the setting is in it only where there is more than one."""
    return f"{kind}.png" if len(list(all_settings)) == 1 else f"{kind}-{setting.slug()}.png"


def trade_off_name(protocol: str, backbone: str) -> str:
    """File name of the figure of what was trained on against what was not."""
    return f"{protocol}-{backbone}.png"


def heat_map_name(backbone: str, shots: int) -> str:
    """File name of the heat map of sources by targets."""
    return f"transfer-{backbone}-{shots}shot.png"


def shot_levels(plan: Plan) -> list[int]:
    """Shots in ascending order."""
    return sorted(plan.config["shots"])


def levels(plan: Plan) -> list[int]:
    """Shots in ascending order and then, if there are several, AVERAGE."""
    shots = shot_levels(plan)
    return [*shots, AVERAGE] if len(shots) > 1 else shots


def ends(plan: Plan) -> list[int]:
    """The fewest and the most shots: what sentences speak of where tables have every level."""
    return sorted({min(plan.config["shots"]), max(plan.config["shots"])})


def level_name(shots: int) -> str:
    """`1 shot`, `16 shots` or `average`."""
    return "average" if shots == AVERAGE else f"{shots} shot{'' if shots == 1 else 's'}"


def dataset_name(dataset: str) -> str:
    """Display name of a dataset; a user's own goes by its id."""
    return catalog.DATASETS[dataset].label if dataset in catalog.DATASETS else dataset


def zero_shot_label(plan: Plan) -> str | None:
    """Label of the method that adapts nothing, if it is planned."""
    return next((label for label, method in plan.methods.items() if method.use == "zero_shot"), None)


def masks_something(plan: Plan, label: str) -> bool:
    """Whether a method tunes masks itself; a stack on a mask-tuned tower does not."""
    return plan.methods[label].entry.masks


@dataclass
class Cell:
    """One method on one dataset at one number of shots: accuracy (percent) by seed."""

    planned: int
    accuracies: dict[int, float] = field(default_factory=dict)
    unflipped: int = 0
    """Runs at whose end no mask was flipped, in the run itself or in the tower below it: mask tuning did nothing."""
    oracle: bool = False
    """Some setting was chosen on the test set."""

    @property
    def complete(self) -> bool:
        """All planned seeds are there."""
        return len(self.accuracies) == self.planned

    @property
    def mean(self) -> float:
        """Mean over the seeds that are there, percent."""
        return statistics.fmean(self.accuracies.values())

    @property
    def spread(self) -> float:
        """Population standard deviation over the seeds that are there (the CoOp protocol), points."""
        return statistics.pstdev(self.accuracies.values())


class Measure(ABC):
    """A score in percent of every method on every dataset at every number of shots, and where it was measured.

    What tests across datasets and tables of means start from: accuracy, or what a protocol makes of several accuracies.
    """

    unit = "dataset"
    """What one of `datasets` is called."""

    def __init__(self, plan: Plan, setting: Setting, datasets: Sequence[str]):
        """`datasets` are the units of tests across datasets."""
        self.plan = plan
        self.setting = setting
        self.datasets = list(datasets)
        self.methods = taking_part(plan, setting.protocol)

    @property
    def others(self) -> list[str]:
        """All methods that are compared with the control; none where the control takes no part."""
        return [label for label in self.methods if label != self.plan.control] if self.has_control else []

    @property
    def has_control(self) -> bool:
        """Whether the control takes part in the protocol."""
        return self.plan.control in self.methods

    @abstractmethod
    def score(self, method: str, dataset: str, shots: int) -> float | None:
        """Percent, averaged over seeds, for AVERAGE over shot levels too; None if any planned run is missing."""

    @abstractmethod
    def unflipped(self, method: str, shots: int) -> int:
        """Runs behind a mean at whose end no mask was flipped."""

    @abstractmethod
    def oracle(self, method: str) -> bool:
        """Whether any setting of the method was chosen on the test set."""

    def complete(self, method: str, shots: int) -> dict[str, float]:
        """Score by dataset, of the datasets where no planned run is missing."""
        scores = {dataset: self.score(method, dataset, shots) for dataset in self.datasets}
        return {dataset: score for dataset, score in scores.items() if score is not None}

    def mean(self, method: str, shots: int) -> float | None:
        """Mean score over all datasets; None if any planned run is missing, since the rest would not compare."""
        found = self.complete(method, shots)
        return statistics.fmean(found.values()) if found and len(found) == len(self.datasets) else None


class Scores(Measure):
    """All cells of one setting."""

    def __init__(self, plan: Plan, rows: Iterable[Row], setting: Setting):
        """Sort the rows of `setting` into cells; cells without rows exist and are empty."""
        protocol, eval_set = setting.protocol, setting.eval_set
        trained = plan.trained_on(protocol)
        super().__init__(plan, setting, [one for one in trained if eval_set in plan.evaluation_sets(protocol, one)])
        mine = [
            row
            for row in rows
            if Setting(row["protocol"], row["backbone"], row["eval_set"]) == setting and row["dataset"] in self.datasets
        ]
        self.images: dict[str, int] = {row["dataset"]: row["images"] for row in mine}
        self._cells: dict[tuple[str, str, int], Cell] = {}
        for label in self.methods:
            few_shot = plan.methods[label].entry.few_shot
            seeds = len(plan.config["seeds"]) if few_shot else 1
            for dataset in self.datasets:
                for shots in shot_levels(plan) if few_shot else [0]:
                    self._cells[label, dataset, shots] = Cell(planned=seeds)
        flipped = {_run(row, row["method"]): row["tuning.masks_flipped"] for row in mine}
        for row in mine:
            cell = self.cell(row["method"], row["dataset"], row["shots"])
            cell.accuracies[row["seed"]] = row["accuracy"]
            # None where nothing is masked; masks on learnt prompts count their own flips, stacks those of the tower.
            cell.unflipped += 0 in (flipped.get(_run(row, row["method"])), flipped.get(_run(row, row["method.below"])))
            cell.oracle |= row["selection.rule"] == "test_oracle"

    def cell(self, method: str, dataset: str, shots: int) -> Cell:
        """One cell; a method that uses no shots has the same cell at every number of shots."""
        return self._cells[method, dataset, shots if self.plan.methods[method].entry.few_shot else 0]

    def score(self, method: str, dataset: str, shots: int) -> float | None:
        """Accuracy in percent, averaged over seeds; see `Measure.score`."""
        wanted = shot_levels(self.plan) if shots == AVERAGE else [shots]
        cells = [self.cell(method, dataset, level) for level in wanted]
        return statistics.fmean(cell.mean for cell in cells) if all(cell.complete for cell in cells) else None

    def unflipped(self, method: str, shots: int) -> int:
        """Runs behind a mean at whose end no mask was flipped."""
        wanted = shot_levels(self.plan) if shots == AVERAGE else [shots]
        return sum(self.cell(method, dataset, level).unflipped for dataset in self.datasets for level in wanted)

    def oracle(self, method: str) -> bool:
        """Whether any setting of the method was chosen on the test set."""
        return any(cell.oracle for (label, _, _), cell in self._cells.items() if label == method)


class Composite(Measure):
    """A score made of the accuracies on several evaluation sets of the same runs."""

    def __init__(self, parts: Sequence[Scores], name: str, datasets: Sequence[str]):
        """`name` stands where an evaluation set is named."""
        super().__init__(parts[0].plan, replace(parts[0].setting, eval_set=name), datasets)
        self._parts = list(parts)

    def unflipped(self, method: str, shots: int) -> int:
        """Counted once, although each run has several evaluation sets."""
        return self._parts[0].unflipped(method, shots)

    def oracle(self, method: str) -> bool:
        """As in any of the evaluation sets."""
        return any(part.oracle(method) for part in self._parts)


def _run(row: Row, method: str | None) -> tuple[str | None, str, int, int]:
    return method, row["dataset"], row["shots"], row["seed"]


def paired(scores: Mapping[str, float], control: Mapping[str, float]) -> list[tuple[float, float]]:
    """Scores of two methods on the datasets that both have: complete cases, in the order of the first."""
    return [(score, control[dataset]) for dataset, score in scores.items() if dataset in control]
