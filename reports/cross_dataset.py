"""cross_dataset: what training on one dataset leaves of the accuracy on the others, beside zero-shot."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reports import text
from reports.cells import (
    Composite,
    Scores,
    dataset_name,
    ends,
    level_name,
    masks_something,
    settings,
    zero_shot_label,
)
from reports.comparisons import Comparison, Comparisons
from reports.rows import Row
from reports.statistics import rounded
from reports.tables import (
    UNFLIPPED,
    Table,
    best_of,
    difference,
    family_notes,
    method_name,
    too_small_note,
    unflipped_note,
)
from rmt.plan import Plan

PROTOCOL = "cross_dataset"
TARGETS = "other_datasets"
"""Stands where an evaluation set is named: the datasets that were not trained on."""


class Counts(NamedTuple):
    """Pairs of a source and a target: accuracy above, equal to or below zero-shot, and how many of these decided."""

    above: int
    equal: int
    below: int
    decided_above: int
    decided_below: int

    @property
    def pairs(self) -> int:
        """Pairs that have all their runs."""
        return self.above + self.equal + self.below


class Transfer(Composite):
    """Accuracy on every target, averaged over the datasets that were trained on; the targets are the units."""

    unit = "target"

    def __init__(self, plan: Plan, rows: Sequence[Row], backbone: str):
        """The cells of one backbone."""
        self.by_set = {one.eval_set: Scores(plan, rows, one) for one in settings(plan, PROTOCOL, backbone)}
        self.sources = plan.trained_on(PROTOCOL)
        targets = [name for name in plan.config["datasets"] if name in self.by_set]
        super().__init__(list(self.by_set.values()), TARGETS, targets)

    @property
    def source(self) -> Scores:
        """Accuracy on the datasets' own test images."""
        return self.by_set["test"]

    @property
    def columns(self) -> list[str]:
        """Every dataset that is evaluated, a single source first."""
        first = self.sources if len(self.sources) == 1 else []
        return list(dict.fromkeys([*first, *self.datasets, *self.sources]))

    def pairs(self) -> list[tuple[str, str]]:
        """(source, target) in the order of the plan."""
        return [(source, target) for source in self.sources for target in self.plan.targets(PROTOCOL, source)]

    def score(self, method: str, dataset: str, shots: int) -> float | None:
        """Percent on the target `dataset`, mean over the sources other than itself; see `Measure.score`."""
        found = [self.by_set[dataset].score(method, source, shots) for source in self.by_set[dataset].datasets]
        known = [score for score in found if score is not None]
        return statistics.fmean(known) if len(known) == len(found) else None

    def gain(self, method: str, source: str, target: str, shots: int) -> float | None:
        """Points over zero-shot on the target, or on the source itself, after training there; None if missing."""
        baseline = zero_shot_label(self.plan)
        cells = self.by_set["test" if source == target else target]
        if baseline is None:
            return None
        score, zero = cells.score(method, source, shots), cells.score(baseline, source, shots)
        return None if score is None or zero is None else score - zero

    def counts(self, found: Iterable[Comparison], method: str, shots: int) -> Counts:
        """Pairs above and below zero-shot; `found` are the transfer tests of the backbone."""
        gains = [gain for pair in self.pairs() if (gain := self.gain(method, *pair, shots)) is not None]
        rounded_gains = rounded(gains)
        mine = [one for one in found if one.dataset and (one.method, one.shots) == (method, shots)]
        return Counts(
            int((rounded_gains > 0).sum()),
            int((rounded_gains == 0).sum()),
            int((rounded_gains < 0).sum()),
            sum(one.verdict == "better" for one in mine),
            sum(one.verdict == "worse" for one in mine),
        )


def transfer_tests(found: Iterable[Comparison], scores: Transfer) -> list[Comparison]:
    """All comparisons with zero-shot of one backbone, over targets and within each."""
    backbone = scores.setting.backbone
    return [one for one in found if (one.scope, one.protocol, one.backbone) == ("transfer", PROTOCOL, backbone)]


def _names(datasets: Iterable[str]) -> str:
    return text.listed([dataset_name(name) for name in datasets])


def summary(scores: Transfer, found: Sequence[Comparison], shots: int) -> Table:
    """Methods by accuracy on the sources, on the other datasets, and its difference from zero-shot."""
    plan, baseline = scores.plan, zero_shot_label(scores.plan)
    tests, transfers = Comparisons(found, scores.setting), transfer_tests(found, scores)
    columns = [{m: one.mean(m, shots) for m in scores.methods} for one in (scores.source, scores)]
    best = [
        best_of({m: value for m, value in column.items() if value is not None and not scores.oracle(m)})
        for column in columns
    ]
    body, unflipped = [], 0
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for column, top in zip(columns, best, strict=True):
            value = column[method]
            row.append(text.MISSING if value is None else f"**{value:.1f}**" if method in top else f"{value:.1f}")
        runs = scores.unflipped(method, shots)
        row[1] += UNFLIPPED if runs else ""
        unflipped += runs
        against_control = tests.across(method, shots)
        row[2] += against_control.mark if against_control else ""
        body.append([*row, *_against_zero_shot(scores, tests, transfers, method, shots)])
    header = ["Method", "source", "others", "others less zero-shot", "95 % interval", "pairs above / equal / below"]
    notes = [
        f"Test accuracy in percent. Source: trained and tested on {_names(scores.sources)}"
        f"{', one by one, and averaged' if len(scores.sources) > 1 else ''}. Others: each of n = "
        f"{len(scores.datasets)} targets, classified among its own classes"
        f"{', first averaged over the sources' if len(scores.sources) > 1 else ''}, then averaged over targets.",
        *family_notes(scores, tests, [shots]),
    ]
    if baseline is not None:
        notes += _zero_shot_notes(scores, transfers, shots)
    else:
        notes.append("Zero-shot is not among the methods, so nothing can be said of what was forgotten.")
    if unflipped:
        notes.append(unflipped_note(unflipped))
    return Table(text.table(header, body), notes)


def _against_zero_shot(
    scores: Transfer, tests: Comparisons, transfers: Sequence[Comparison], method: str, shots: int
) -> list[str]:
    """Difference, interval and counts; dashes for zero-shot itself."""
    if method == zero_shot_label(scores.plan):
        return [text.NOTHING] * 3
    one = tests.get("transfer", method, "", shots)
    if one is None or not one.n:
        return [text.MISSING] * 3
    count = scores.counts(transfers, method, shots)
    # Complete cases only, so that the difference and the means beside it speak of the same targets.
    shown = text.points(one.mean_difference) + one.mark + ("" if one.n == len(scores.datasets) else f" (n = {one.n})")
    decided = f" ({count.decided_above} ↑, {count.decided_below} ↓)"
    return [shown, text.interval(one.low, one.high), f"{count.above} / {count.equal} / {count.below}{decided}"]


def _zero_shot_notes(scores: Transfer, transfers: Sequence[Comparison], shots: int) -> list[str]:
    over = [one for one in transfers if not one.dataset and one.shots == shots and one.n]
    within = [one for one in transfers if one.dataset and one.shots == shots and one.n]
    notes = []
    if over:
        n = text.spread(one.n for one in over)
        several = len(scores.sources) > 1
        sources = ", and sources, because runs that share a target are not independent" if several else ""
        notes.append(
            f"Less zero-shot: the target is the unit (n = {n}), seeds averaged first{sources}; BCa bootstrap interval "
            "over targets, approximate. ↑ ↓ significantly above or below zero-shot: Wilcoxon signed-rank test, Holm "
            f"within a family of {text.count(over[0].family_size, 'comparison')}. {too_small_note(over, 'target')}"
        )
    if within:
        notes.append(
            f"Pairs of a source and a target ({len(scores.pairs())}): above, equal to or below zero-shot in accuracy; "
            "in brackets how many of them significantly, by the sign-flip permutation test over n = "
            f"{text.spread(one.n for one in within)} test images, Holm within a family of "
            f"{text.spread(one.family_size for one in within)} comparisons per pair."
        )
    return [note.rstrip() for note in notes]


def shown_methods(scores: Transfer) -> list[str]:
    """The methods that have a matrix of their own: the control and those that tune masks."""
    plan, baseline = scores.plan, zero_shot_label(scores.plan)
    return [
        method
        for method in scores.methods
        if method != baseline and (method == plan.control or masks_something(plan, method))
    ]


def _gain(scores: Transfer, tests: dict[str, Comparisons], method: str, source: str, target: str, shots: int) -> str:
    gain = scores.gain(method, source, target, shots)
    if gain is None:
        return text.MISSING
    if source == target:
        return f"*{text.points(gain)}*"
    one = tests[target].get("transfer", method, source, shots)
    return text.points(gain) + (one.mark if one else "")


MATRIX_NOTE = (
    "Points over zero-shot, seeds averaged. *Italic*: on the dataset that was trained on, which is in no mean. ↑ ↓ "
    "significantly above or below zero-shot within that test set."
)


def matrix(scores: Transfer, found: Sequence[Comparison], method: str, shots: int) -> Table:
    """Sources by targets: points over zero-shot of one method."""
    tests = _by_target(scores, found)
    targets = scores.columns
    body = []
    for source in scores.sources:
        gains = [scores.gain(method, one, target, shots) for one, target in scores.pairs() if one == source]
        body.append(
            [
                dataset_name(source),
                *(_gain(scores, tests, method, source, target, shots) for target in targets),
                _mean(gains),
            ]
        )
    means = [
        _mean([scores.gain(method, source, one, shots) for source, one in scores.pairs() if one == target])
        for target in targets
    ]
    body.append(["mean", *means, _mean([scores.gain(method, *pair, shots) for pair in scores.pairs()])])
    header = ["Trained on", *map(dataset_name, targets), "mean of others"]
    return Table(text.table(header, body), [MATRIX_NOTE])


def _mean(gains: Sequence[float | None]) -> str:
    known = [gain for gain in gains if gain is not None]
    if not gains:
        return text.NOTHING
    return text.points(statistics.fmean(known)) if len(known) == len(gains) else text.MISSING


def _by_target(scores: Transfer, found: Sequence[Comparison]) -> dict[str, Comparisons]:
    mine = transfer_tests(found, scores)
    return {name: Comparisons(mine, one.setting) for name, one in scores.by_set.items()}


def row_table(scores: Transfer, found: Sequence[Comparison], shots: int) -> Table:
    """Methods by targets: what `matrix` shows, for all methods, where only one dataset was trained on."""
    plan, baseline = scores.plan, zero_shot_label(scores.plan)
    (source,) = scores.sources
    tests = _by_target(scores, found)
    body = []
    for method in scores.methods:
        if method != baseline:
            gains = [scores.gain(method, *pair, shots) for pair in scores.pairs()]
            cells = [_gain(scores, tests, method, source, target, shots) for target in scores.columns]
            body.append([method_name(plan, scores, method), *cells, _mean(gains)])
    return Table(text.table(["Method", *map(dataset_name, scores.columns), "mean of others"], body), [MATRIX_NOTE])


def source_table(scores: Transfer, found: Sequence[Comparison], source: str, shots: int) -> Table:
    """Every method against zero-shot on each target, after training on one source: interval and corrected p."""
    plan, baseline = scores.plan, zero_shot_label(scores.plan)
    tests = _by_target(scores, found)
    targets = plan.targets(PROTOCOL, source)
    body = [
        [
            method_name(plan, scores, method),
            *(difference(tests[target].get("transfer", method, source, shots)) for target in targets),
        ]
        for method in scores.methods
        if method != baseline
    ]
    return Table(
        text.table(["Method", *map(dataset_name, targets)], body),
        [
            "Points over zero-shot on the test images of each target, 95 % percentile bootstrap interval over images, "
            "p of the sign-flip permutation test, Holm within each column. ↑ ↓ significantly above or below zero-shot."
        ],
    )


def findings(scores: Transfer, found: Sequence[Comparison]) -> list[str]:
    """What is left of zero-shot on the other datasets, of the control and of the best and the worst method."""
    plan, baseline, said = scores.plan, zero_shot_label(scores.plan), []
    tests, transfers = Comparisons(found, scores.setting), transfer_tests(found, scores)
    if baseline is None:
        return []
    for shots in ends(plan):
        level = level_name(shots)
        gains = {
            method: one.mean_difference
            for method in scores.methods
            if (one := tests.get("transfer", method, "", shots)) is not None and one.n == len(scores.datasets)
        }
        if not gains:
            said.append(f"At {level} no method has all its runs, so nothing is said of the datasets not trained on.")
            continue
        first = plan.control if plan.control in gains else max(gains, key=lambda method: gains[method])
        count = scores.counts(transfers, first, shots)
        sentence = (
            f"At {level}, on datasets that it was not trained on, **{text.escaped(plan.display(first))}** is "
            f"{text.points(gains[first])} points from zero-shot on average: above it on {count.above}, below it on "
            f"{count.below} of {text.count(count.pairs, 'pair')} of a source and a target "
            f"({count.decided_above} and {count.decided_below} significantly)"
        )
        rest = [method for method in gains if method != first]
        if rest:
            low, high = (choose(rest, key=lambda method: gains[method]) for choose in (min, max))
            extremes = [
                f"{text.escaped(plan.display(one))} ({text.points(gains[one])})" for one in dict.fromkeys([high, low])
            ]
            several = f"the others range from {' to '.join(extremes)}"
            sentence += "; " + (several if len(extremes) > 1 else f"the others: {extremes[0]}")
        said.append(f"{sentence}.")
    return said
