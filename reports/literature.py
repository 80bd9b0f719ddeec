"""Numbers of the literature beside ours: `published/*.csv`, one file per source project, each row with its source.

A benchmark shares a cell with them when dataset, backbone, method and number of shots agree under the few-shot
protocol of CoOp (its split, its draw). The difference is ours minus theirs; its interval is a bootstrap over our test
images, because theirs come without predictions: it says how sharply our test set measures our own accuracy, and
nothing of the spread over few-shot draws, nor of the published number's own error.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reports import rows, statistics, text
from reports.cells import Scores, dataset_name
from reports.comparisons import Comparison
from reports.rows import Kind
from rmt.plan import Plan

FOLDER = Path(__file__).with_name("published")
COLUMNS: dict[str, Kind] = {
    "source": "text",
    "method": "text",
    "backbone": "text",
    "dataset": "text",
    "shots": "int",
    "accuracy": "float",
    "note": "text",
}

OURS: dict[str, tuple[str, ...]] = {
    "Zero-shot CLIP": ("zero_shot",),
    "Linear probe": ("linear_probe",),
    "CoOp": ("coop",),
    "CLIP-Adapter": ("clip_adapter",),
    "Tip-Adapter": ("tip_adapter",),
    "Tip-Adapter-F": ("tip_adapter_f", "tip_adapter_f_test_oracle"),
    "AMT": ("amt",),
    "R-AMT": ("r_amt", "r_amt_released"),
    "CoOp+R-AMT": ("coop+r_amt", "coop+r_amt_released"),
    "Tip-Adapter+R-AMT": ("tip_adapter+r_amt", "tip_adapter_f+r_amt"),
}
"""Published name to registered methods. R-AMT's own recipe cannot be told: see `WHY`."""

UNLABELLED = "wuw2019/R-AMT"
"""Source whose "Tip-Adapter" may be Tip-Adapter or Tip-Adapter-F: it stands beside both."""

WHY = {
    "R-AMT": "With R-AMT's released schedule no mask can flip at the fewest shots, so its published few-shot numbers "
    "were made with other settings than those released; they stand beside both of our variants.",
    "unlabelled": "The R-AMT authors do not say whether their Tip-Adapter rows are Tip-Adapter or Tip-Adapter-F; they "
    "stand beside both.",
    "Tip-Adapter": "Tip-Adapter's own code searches its scales on the whole validation set (on ImageNet on the test "
    "set), and Tip-Adapter-F's keeps the epoch that is best on the test set; ours look at few-shot validation images "
    "only, unless selected on test by name, so gaps are expected.",
    "Zero-shot CLIP": "On ImageNet the Tip-Adapter authors average seven prompts; ours is one prompt everywhere.",
}


@dataclass(frozen=True)
class Published:
    """One number of the literature, in percent."""

    source: str
    method: str
    backbone: str
    dataset: str
    shots: int
    accuracy: float
    note: str

    @property
    def ours(self) -> tuple[str, ...]:
        """Registered methods, or stacks METHOD+TOWER, that the number stands beside."""
        if self.method == "Tip-Adapter" and self.source.startswith(UNLABELLED):
            return ("tip_adapter", "tip_adapter_f")
        return OURS[self.method]


@cache
def published() -> tuple[Published, ...]:
    """All published numbers of this repository.

    Raises:
        BadRecord: a file is damaged.
    """
    found = [row for path in sorted(FOLDER.glob("*.csv")) for row in rows.read(path, COLUMNS)]
    return tuple(Published(**(row | {"note": row["note"] or ""})) for row in found)


def _registered(plan: Plan, label: str) -> str:
    """The registered method, or stack, behind a label of the config."""
    method = plan.methods[label]
    return method.use if method.below is None else f"{method.use}+{plan.methods[method.below].use}"


def own_settings(plan: Plan, label: str) -> bool:
    """Whether the config changes the registered, published hyperparameters of a method or of the tower below it."""
    method = plan.methods[label]
    return bool(method.overrides) or (method.below is not None and bool(plan.methods[method.below].overrides))


def shared_cells(plan: Plan, scores: Scores, dataset: str) -> Iterator[tuple[str, Published]]:
    """(our label, published number) of every finished cell of one dataset that the literature has too."""
    setting = scores.setting
    if (setting.protocol, setting.eval_set) != ("few_shot", "test"):
        return
    for label, method in plan.methods.items():
        shots = plan.config["shots"] if method.entry.few_shot else [0]
        for one in published():
            if (one.dataset, one.backbone) != (dataset, setting.backbone) or one.shots not in shots:
                continue
            if _registered(plan, label) in one.ours and scores.cell(label, dataset, one.shots).complete:
                yield label, one


def compare(
    blank: Callable[[str, int], Comparison],
    plan: Plan,
    scores: Scores,
    dataset: str,
    right: Callable[[str, int, int], NDArray[np.bool_]],
) -> list[Comparison]:
    """Ours minus theirs for every shared cell of one dataset.

    Args:
        blank: an empty comparison of a method and a number of shots.
        plan: the checked config.
        scores: cells of the setting.
        dataset: name of the dataset.
        right: (images,) whether the run of a method, shots and seed is right.

    Returns:
        Comparisons of scope "published": `control` is the published method's name, `test` its source, `statistic` its
        accuracy; `shots` 0 means that no training images were used.
    """
    found = []
    for label, one in shared_cells(plan, scores, dataset):
        cell = scores.cell(label, dataset, one.shots)
        times = sum(right(label, one.shots, seed).astype(np.int64) for seed in cell.accuracies)
        assert isinstance(times, np.ndarray)
        points = 100 / len(cell.accuracies)
        random = statistics.generator("published", scores.setting.slug(), label, dataset, one.shots)
        interval = statistics.percentile_interval(times, plan.config["resamples"], random)
        values = {
            "control": one.method,
            "test": one.source,
            "statistic": one.accuracy,
            "n": times.size,
            "seeds": " ".join(map(str, sorted(cell.accuracies))),
            "mean_difference": cell.mean - one.accuracy,
            "low": points * interval.low - one.accuracy,
            "high": points * interval.high - one.accuracy,
            "interval": "percentile bootstrap over our images",
            "verdict": "",
        }
        found.append(Comparison(**(vars(blank(label, one.shots)) | values)))
    return found


def _sources(found: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(one.test for one in found))


def _name(plan: Plan, label: str) -> str:
    return text.escaped(plan.display(label)) + ("*" if own_settings(plan, label) else "")


def _shots(shots: int) -> str:
    return str(shots) if shots else "none"


def notes(plan: Plan, found: Sequence[Comparison]) -> list[str]:
    """What a reader must know of the compared numbers, and their sources."""
    controls = {one.control for one in found}
    said = [
        "Interval: 95 % percentile bootstrap over our test images, seeds averaged. The published numbers come without "
        "predictions, so theirs is taken as exact; nothing here covers the spread over few-shot draws."
    ]
    if any(own_settings(plan, one.method) for one in found):
        said.append("\\* with settings of this config's own, not the published ones.")
    if controls & {"R-AMT", "CoOp+R-AMT", "Tip-Adapter+R-AMT"}:
        said.append(WHY["R-AMT"])
    if any(one.control.startswith("Tip-Adapter") and one.test.startswith(UNLABELLED) for one in found):
        said.append(WHY["unlabelled"])
    if any(one.control.startswith("Tip-Adapter") and not one.test.startswith(UNLABELLED) for one in found):
        said.append(WHY["Tip-Adapter"])
    if any(one.dataset == "imagenet" and one.control == "Zero-shot CLIP" for one in found):
        said.append(WHY["Zero-shot CLIP"])
    numbered = [f"[{number}] {text.escaped(source)}" for number, source in enumerate(_sources(found), 1)]
    return [*said, "Sources: " + "; ".join(numbered) + "."]


def dataset_table(plan: Plan, found: Sequence[Comparison]) -> str:
    """Every shared cell of one dataset: ours, theirs, the difference and its interval, the source's number."""
    sources = _sources(found)
    body = [
        [
            _name(plan, one.method),
            text.escaped(one.control),
            _shots(one.shots),
            f"{one.statistic + one.mean_difference:.1f}",
            f"{one.statistic:.1f}",
            text.points(one.mean_difference),
            text.interval(one.low, one.high),
            f"[{sources.index(one.test) + 1}]",
        ]
        for one in found
    ]
    header = ["Method", "published as", "shots", "ours", "published", "difference", "95 % interval", "source"]
    return text.table(header, body, left=2)


def summary_table(plan: Plan, found: Sequence[Comparison]) -> str:
    """Every method and number of shots: means over the datasets that both have.

    The interval of a mean takes the datasets' test images as independent: half widths add in squares.
    """
    sources, groups = _sources(found), _grouped(found)
    body = []
    for (label, control, shots, source), cells in groups.items():
        n = len(cells)
        difference = sum(one.mean_difference for one in cells) / n
        half = math.sqrt(sum(((one.high - one.low) / 2) ** 2 for one in cells)) / n
        theirs = sum(one.statistic for one in cells) / n
        far = max(cells, key=lambda one: abs(one.mean_difference))
        body.append(
            [
                _name(plan, label),
                text.escaped(control),
                _shots(shots),
                f"{n}",
                f"{theirs + difference:.1f}",
                f"{theirs:.1f}",
                text.points(difference),
                text.interval(difference - half, difference + half),
                f"{text.points(far.mean_difference)} ({dataset_name(far.dataset)})",
                f"[{sources.index(source) + 1}]",
            ]
        )
    header = ["Method", "published as", "shots", "datasets", "ours", "published", "difference", "95 % interval"]
    return text.table([*header, "furthest", "source"], body, left=2)


def _grouped(found: Iterable[Comparison]) -> dict[tuple[str, str, int, str], list[Comparison]]:
    groups: dict[tuple[str, str, int, str], list[Comparison]] = {}
    for one in found:
        groups.setdefault((one.method, one.control, one.shots, one.test), []).append(one)
    return groups
