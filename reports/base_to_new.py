"""base_to_new: accuracy on the classes that were trained on, on the others, and their harmonic mean H."""

import statistics
from collections.abc import Iterable, Sequence

from reports import text
from reports.cells import (
    AVERAGE,
    Composite,
    Scores,
    Setting,
    dataset_name,
    ends,
    level_name,
    shot_levels,
    zero_shot_label,
)
from reports.comparisons import Comparisons
from reports.rows import Row
from reports.tables import (
    MISSING_NOTE,
    UNFLIPPED,
    Table,
    best_methods,
    best_of,
    difference,
    family_notes,
    method_name,
    unflipped_note,
    within_note,
)
from rmt.plan import Plan

PROTOCOL = "base_to_new"
HARMONIC = "harmonic_mean"
"""Stands where an evaluation set is named: the harmonic mean of base and new, which is no set of images."""


def harmonic_mean(base: float, new: float) -> float:
    """2 base new / (base + new), in the unit of its arguments; 0 if both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


class HarmonicMeans(Composite):
    """H of every cell: of each seed's own base and new, then averaged over seeds."""

    def __init__(self, plan: Plan, rows: Sequence[Row], backbone: str):
        """The cells of one backbone."""
        self.base = Scores(plan, rows, Setting(PROTOCOL, backbone, "base"))
        self.new = Scores(plan, rows, Setting(PROTOCOL, backbone, "new"))
        super().__init__([self.base, self.new], HARMONIC, self.base.datasets)

    def by_seed(self, method: str, dataset: str, shots: int) -> dict[int, float]:
        """H in percent of every seed that has both."""
        base, new = self.base.cell(method, dataset, shots), self.new.cell(method, dataset, shots)
        return {
            seed: harmonic_mean(value, new.accuracies[seed])
            for seed, value in base.accuracies.items()
            if seed in new.accuracies
        }

    def score(self, method: str, dataset: str, shots: int) -> float | None:
        """H in percent, averaged over seeds; see `Measure.score`."""
        wanted = shot_levels(self.plan) if shots == AVERAGE else [shots]
        found = [self.by_seed(method, dataset, level) for level in wanted]
        planned = self.base.cell(method, dataset, wanted[0]).planned
        if any(len(one) < planned for one in found):
            return None
        return statistics.fmean(statistics.fmean(one.values()) for one in found)

    def of_means(self, method: str, shots: int) -> float | None:
        """H of the mean accuracies over datasets, as papers print it; None if any planned run is missing."""
        base, new = self.base.mean(method, shots), self.new.mean(method, shots)
        return None if base is None or new is None else harmonic_mean(base, new)


def mean_table(scores: HarmonicMeans, tests: Comparisons, shots: int) -> Table:
    """Methods by base, new and H, means over datasets; H is marked by its tests across datasets."""
    plan = scores.plan
    ranked = [method for method in scores.methods if not scores.oracle(method)]
    columns = [
        {method: score(method, shots) for method in scores.methods}
        for score in (scores.base.mean, scores.new.mean, scores.mean, scores.of_means)
    ]
    best = [best_of({m: value for m in ranked if (value := column[m]) is not None}) for column in columns]
    body, unflipped = [], 0
    for method in scores.methods:
        if scores.mean(method, shots) is None:
            have = f"{text.MISSING} ({len(scores.complete(method, shots))}/{len(scores.datasets)})"
            body.append([method_name(plan, scores, method), *[have] * len(columns)])
            continue
        shown = [
            f"**{column[method]:.1f}**" if method in top else f"{column[method]:.1f}"
            for column, top in zip(columns, best, strict=True)
        ]
        one = tests.across(method, shots)
        shown[2] += one.mark if one else ""
        runs = scores.unflipped(method, shots)
        shown[0] += UNFLIPPED if runs else ""
        unflipped += runs
        body.append([method_name(plan, scores, method), *shown])
    notes = [
        f"Test accuracy in percent, mean over n = {text.count(len(scores.datasets), 'dataset')}; base: among the "
        "classes that were trained on, new: among the others. H = 2 · base · new / (base + new). *Mean of H*: by seed, "
        "averaged over seeds and then over datasets; it is what is tested. *H of means*: of the two mean accuracies in "
        "its row, as papers print it.",
        *family_notes(scores, tests, [shots]),
    ]
    if any(text.MISSING in row[1] for row in body):
        notes.append(MISSING_NOTE)
    if unflipped:
        notes.append(unflipped_note(unflipped))
    return Table(text.table(["Method", "base", "new", "mean of H", "H of means"], body), notes)


def _parts(scores: HarmonicMeans, tests: Sequence[Comparisons], method: str, dataset: str, shots: int) -> list[str]:
    """Base and new with their marks, and H; empty if a run is missing."""
    h = scores.score(method, dataset, shots)
    if h is None:
        return []
    found = []
    for part, mine in zip((scores.base, scores.new), tests, strict=True):
        one = mine.within(method, dataset, shots)
        found.append(f"{part.cell(method, dataset, shots).mean:.1f}{one.mark if one else ''}")
    return [*found, f"{h:.1f}"]


def matrix(scores: HarmonicMeans, tests: Sequence[Comparisons], shots: int, link: str) -> Table:
    """Methods by datasets: base and new with marks within the dataset, and H. `tests` are those on base and on new."""
    plan = scores.plan
    best = {
        dataset: best_of(
            {
                method: score
                for method in scores.methods
                if not scores.oracle(method) and (score := scores.score(method, dataset, shots)) is not None
            }
        )
        for dataset in scores.datasets
    }
    body = []
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for dataset in scores.datasets:
            parts = _parts(scores, tests, method, dataset, shots)
            h = f"**{parts[2]}**" if parts and method in best[dataset] else "".join(parts[2:])
            row.append(f"{parts[0]} / {parts[1]}<br>H {h}" if parts else text.MISSING)
        body.append(row)
    header = ["Method", *(f"[{dataset_name(name)}]({link.format(dataset=name)})" for name in scores.datasets)]
    families = [mine.family("within", dataset, shots) for mine in tests for dataset in scores.datasets]
    notes = ["Base / new, and H beneath; the highest H is bold."]
    if any(families):
        notes.append(within_note(plan, families, "dataset, on base and on new separately"))
    return Table(text.table(header, body), notes)


def dataset_table(scores: HarmonicMeans, tests: Sequence[Comparisons], dataset: str) -> Table:
    """Methods by shots on one dataset: base, new and H, each with its spread over seeds."""
    plan = scores.plan
    body = []
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for shots in shot_levels(plan):
            h = scores.by_seed(method, dataset, shots)
            for part, mine in zip((scores.base, scores.new), tests, strict=True):
                cell, one = part.cell(method, dataset, shots), mine.within(method, dataset, shots)
                row.append(_spread(cell.accuracies.values(), cell.planned, one.mark if one else ""))
            row.append(_spread(h.values(), scores.base.cell(method, dataset, shots).planned))
        body.append(row)
    header = ["Method"]
    for shots in shot_levels(plan):
        header += [f"base, {level_name(shots)}", "new", "H"]
    seeds = len(plan.config["seeds"])
    notes = [f"Mean ± population standard deviation over {seeds} seeds."] if seeds > 1 else []
    families = [mine.family("within", dataset, shots) for mine in tests for shots in shot_levels(plan)]
    if any(families):
        notes.append(within_note(plan, families, "number of shots, on base and on new separately"))
    return Table(text.table(header, body), notes)


def _spread(values: Iterable[float], planned: int, mark: str = "") -> str:
    found = list(values)
    if not found:
        return text.MISSING
    shown = f"{statistics.fmean(found):.1f}"
    shown += (f" ± {statistics.pstdev(found):.1f}" if planned > 1 else "") + mark
    return shown if len(found) == planned else f"{shown} ({len(found)}/{planned} seeds)"


def within_table(scores: HarmonicMeans, tests: Sequence[Comparisons], dataset: str) -> Table:
    """Every method against the control on one dataset: base and new by shots."""
    plan = scores.plan
    columns = [
        (shots, name, mine) for shots in shot_levels(plan) for name, mine in zip(("base", "new"), tests, strict=True)
    ]
    body = [
        [
            method_name(plan, scores, method),
            *(difference(mine.within(method, dataset, shots)) for shots, _, mine in columns),
        ]
        for method in scores.others
    ]
    header = ["Method", *(f"{name}, {level_name(shots)}" for shots, name, _ in columns)]
    families = [mine.family("within", dataset, shots) for shots, _, mine in columns]
    return Table(
        text.table(header, body),
        [
            "Points above or below the control, 95 % percentile bootstrap interval over images, corrected p.",
            within_note(plan, families, "number of shots, on base and on new separately"),
        ],
    )


def findings(scores: HarmonicMeans) -> list[str]:
    """Who has the highest H at each number of shots, and what tuning did to classes not trained on."""
    plan, said = scores.plan, []
    baseline = zero_shot_label(plan)
    for shots in ends(plan):
        means = {m: mean for m in scores.methods if (mean := scores.mean(m, shots)) is not None}
        best = [m for m in means if m in best_methods(plan, scores, shots)]
        if not best:
            said.append(f"At {level_name(shots)} no method has all its runs, so no harmonic mean is given.")
            continue
        names = text.listed([text.escaped(plan.display(m)) for m in best])
        sentence = (
            f"At {level_name(shots)} **{names}** {'has' if len(best) == 1 else 'share'} the highest harmonic mean of "
            f"base and new classes, {means[best[0]]:.1f} %"
        )
        if plan.control in means and plan.control not in best:
            control = text.escaped(plan.display(plan.control))
            sentence += f"; the control {control} has {means[plan.control]:.1f} %"
        if baseline in means:
            zero = scores.new.mean(baseline, shots)
            new = {m: scores.new.mean(m, shots) for m in means if m != baseline}
            below = sum(value < zero for value in new.values() if value is not None and zero is not None)
            sentence += (
                f". On new classes {below} of {text.count(len(new), 'method')} are below zero-shot" if new else ""
            )
        said.append(f"{sentence}.")
    return said
