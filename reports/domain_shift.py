"""domain_shift: accuracy on the dataset that was trained on and on its shifted test sets."""

import statistics
from collections.abc import Sequence

from reports import text
from reports.cells import Composite, Scores, Setting, dataset_name, ends, level_name, settings
from reports.comparisons import Comparison, Comparisons
from reports.rows import Row
from reports.tables import (
    UNFLIPPED,
    Table,
    best_of,
    difference,
    family_notes,
    method_name,
    unflipped_note,
    within_note,
)
from rmt.plan import Plan

PROTOCOL = "domain_shift"
SHIFTED = "mean_of_shifted"
"""Stands where an evaluation set is named: the mean over the shifted test sets of a dataset."""


class Shifted(Composite):
    """The mean accuracy over the shifted test sets, by the dataset that was trained on."""

    def __init__(self, plan: Plan, rows: Sequence[Row], backbone: str):
        """The cells of one backbone."""
        self.by_set = {one.eval_set: Scores(plan, rows, one) for one in settings(plan, PROTOCOL, backbone)}
        super().__init__(list(self.by_set.values()), SHIFTED, plan.trained_on(PROTOCOL))

    @property
    def source(self) -> Scores:
        """Accuracy on the dataset's own test images."""
        return self.by_set["test"]

    def sets(self, source: str) -> dict[str, Scores]:
        """The shifted test sets of a dataset."""
        return {name: self.by_set[name] for name in self.plan.targets(PROTOCOL, source)}

    def score(self, method: str, dataset: str, shots: int) -> float | None:
        """Percent, mean over the shifted sets; see `Measure.score`."""
        found = [one.score(method, dataset, shots) for one in self.sets(dataset).values()]
        known = [score for score in found if score is not None]
        return statistics.fmean(known) if len(known) == len(found) else None


def set_name(name: str, source: str) -> str:
    """Name of an evaluation set for a column: the dataset itself for `test`."""
    return dataset_name(source if name == "test" else name)


def _tests(found: Sequence[Comparison], scores: Shifted, source: str) -> dict[str, Comparisons]:
    sets = ["test", *scores.sets(source)]
    return {name: Comparisons(found, Setting(PROTOCOL, scores.setting.backbone, name)) for name in sets}


def source_table(scores: Shifted, found: Sequence[Comparison], source: str, shots: int) -> Table:
    """Methods by source, shifted sets, their mean, and the mean less the source; marks within each test set."""
    plan = scores.plan
    tests = _tests(found, scores, source)
    columns = {name: {m: scores.by_set[name].score(m, source, shots) for m in scores.methods} for name in tests}
    columns[SHIFTED] = {method: scores.score(method, source, shots) for method in scores.methods}
    best = {
        name: best_of({m: value for m, value in column.items() if value is not None and not scores.oracle(m)})
        for name, column in columns.items()
    }
    body, unflipped = [], 0
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for name, column in columns.items():
            value = column[method]
            if value is None:
                row.append(text.MISSING)
                continue
            one = tests[name].within(method, source, shots) if name in tests else None
            row.append((f"**{value:.1f}**" if method in best[name] else f"{value:.1f}") + (one.mark if one else ""))
        runs = scores.source.cell(method, source, shots).unflipped
        row[1] += UNFLIPPED if runs else ""
        unflipped += runs
        row.append(_drop(columns["test"][method], columns[SHIFTED][method]))
        body.append(row)
    header = ["Method", *(set_name(name, source) for name in tests), "mean of shifted", "less the source"]
    notes = [
        f"Test accuracy in percent, mean over {text.count(len(plan.config['seeds']), 'seed')}; trained on "
        f"{dataset_name(source)} only. Last column: points between the mean of the shifted sets and the source; "
        "nothing is tested on the last two."
    ]
    families = [mine.family("within", source, shots) for mine in tests.values()]
    if any(families):
        notes.append(within_note(plan, families, "test set"))
    if unflipped:
        notes.append(unflipped_note(unflipped))
    return Table(text.table(header, body), notes)


def _drop(source: float | None, shifted: float | None) -> str:
    return text.MISSING if source is None or shifted is None else text.points(shifted - source)


def mean_table(scores: Shifted, tests: Comparisons, shots: int) -> Table:
    """Means over several datasets that were trained on; the mean of the shifted sets is marked by tests across them."""
    plan = scores.plan
    columns = [{m: one.mean(m, shots) for m in scores.methods} for one in (scores.source, scores)]
    best = [
        best_of({m: value for m, value in column.items() if value is not None and not scores.oracle(m)})
        for column in columns
    ]
    body = []
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for column, top in zip(columns, best, strict=True):
            value = column[method]
            row.append(text.MISSING if value is None else f"**{value:.1f}**" if method in top else f"{value:.1f}")
        one = tests.across(method, shots)
        row[2] += one.mark if one else ""
        body.append([*row, _drop(columns[0][method], columns[1][method])])
    notes = [
        f"Mean over n = {len(scores.datasets)} datasets that were trained on, one by one, of the accuracy on their own "
        "test images and of the mean over their shifted sets, in percent.",
        *family_notes(scores, tests, [shots]),
    ]
    return Table(text.table(["Method", "sources", "mean of shifted", "less the source"], body), notes)


def within_table(scores: Shifted, found: Sequence[Comparison], source: str, shots: int) -> Table:
    """Every method against the control on the source and on each shifted set."""
    plan = scores.plan
    tests = _tests(found, scores, source)
    body = [
        [method_name(plan, scores, m), *(difference(mine.within(m, source, shots)) for mine in tests.values())]
        for m in scores.others
    ]
    return Table(
        text.table(["Method", *(set_name(name, source) for name in tests)], body),
        [
            "Points above or below the control, 95 % percentile bootstrap interval over images, corrected p.",
            within_note(plan, [mine.family("within", source, shots) for mine in tests.values()], "test set"),
        ],
    )


def findings(scores: Shifted) -> list[str]:
    """Who is best on the shifted sets at each number of shots, and what the shift costs."""
    plan, said = scores.plan, []
    for shots in ends(plan):
        means = {m: mean for m in scores.methods if (mean := scores.mean(m, shots)) is not None}
        best = [m for m in means if m in best_of({m: v for m, v in means.items() if not scores.oracle(m)})]
        if not best:
            said.append(f"At {level_name(shots)} no method has all its runs, so no mean over shifted sets is given.")
            continue
        names = text.listed([text.escaped(plan.display(m)) for m in best])
        verb = "has" if len(best) == 1 else "share"
        sentence = (
            f"At {level_name(shots)} **{names}** {verb} the highest mean over the shifted sets, {means[best[0]]:.1f} %"
        )
        for method in dict.fromkeys([best[0], plan.control]):
            source = scores.source.mean(method, shots)
            if method in means and source is not None:
                who = "" if method == best[0] else f"the control {text.escaped(plan.display(method))} has "
                level = "" if method == best[0] else f"{means[method]:.1f} %, "
                change = text.points(means[method] - source)
                sentence += f"{'; ' if who else ', '}{who}{level}{change} points from its source"
        said.append(f"{sentence}.")
    return said
