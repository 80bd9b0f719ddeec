"""Tables of results and of comparisons, each with a note that states n, test and family size."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reports import cells, statistics, text
from reports.cells import Cell, Measure, Scores, dataset_name, level_name, levels, shot_levels, zero_shot_label
from reports.comparisons import Comparison, Comparisons
from reports.rows import Row
from rmt.plan import Plan

UNFLIPPED = "∅"
"""Mark of a cell in which a run ended without a single flipped mask."""

ORACLE = "°"
"""Mark of a method whose settings were chosen on the test set."""


MISSING_NOTE = "missing (a/b): only a of b datasets have all their runs, and a mean over fewer would not compare."


class Table(NamedTuple):
    """A Markdown table and the notes to print beneath it."""

    table: str
    notes: list[str]


def method_name(plan: Plan, scores: Measure, method: str) -> str:
    """Display name for the first column."""
    name = text.escaped(plan.display(method)) + (ORACLE if scores.oracle(method) else "")
    return f"{name} (control)" if method == plan.control else name


def best_of(values: Mapping[str, float]) -> set[str]:
    """Methods that share the highest value as printed: what the page shows as equal is not told apart."""
    shown = {method: f"{value:.1f}" for method, value in values.items()}
    top = max((float(value) for value in shown.values()), default=math.nan)
    return {method for method, value in shown.items() if float(value) == top}


def best_methods(plan: Plan, scores: Measure, shots: int) -> set[str]:
    """Methods with the highest mean over datasets; one whose settings were chosen on the test set does not compete."""
    means = {method: scores.mean(method, shots) for method in scores.methods if not scores.oracle(method)}
    return best_of({method: mean for method, mean in means.items() if mean is not None})


def _seeds(plan: Plan) -> str:
    return text.count(len(plan.config["seeds"]), "seed")


def too_small_note(family: Sequence[Comparison], unit: str) -> str:
    """Why a family is not marked, and how many units it would take; empty if it may be marked."""
    refused = [one for one in family if one.verdict == "n too small"]
    if not refused:
        return ""
    one = min(refused, key=lambda refused: refused.smallest_p)
    needed = statistics.units_needed(one.family_size)
    return (
        f"**n too small**: with n = {one.n} {unit}s p cannot go below {text.p_value(one.smallest_p)}, and "
        f"{text.count(one.family_size, 'comparison')} corrected together need n ≥ {needed} for any mark at all."
    )


def family_notes(scores: Measure, tests: Comparisons, all_levels: Sequence[int]) -> list[str]:
    """Test, n, family size and refusals of the tests across datasets; one note for levels that agree."""
    plan = scores.plan
    grouped: dict[tuple[str, str, int], list[str]] = {}
    for shots in all_levels:
        family = [one for one in tests.family("across", "", shots) if one.family_size and one.n]
        if family:
            n = text.spread(one.n for one in family)
            key = (n, too_small_note(family, scores.unit), family[0].family_size)
            grouped.setdefault(key, []).append(level_name(shots))
    return [
        f"{_capital(', '.join(names))}: Wilcoxon signed-rank test against {plan.display(plan.control)}, "
        f"n = {n} {scores.unit}s, Holm within a family of {text.count(size, 'comparison')}"
        f"{' per column' if len(names) > 1 else ''}. {refusal}".rstrip()
        for (n, refusal, size), names in grouped.items()
    ]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def summary(scores: Scores, tests: Comparisons) -> Table:
    """Methods by shots: mean accuracy over datasets, gain over zero-shot, marks against the control."""
    plan = scores.plan
    baseline = zero_shot_label(plan)
    best = {shots: best_methods(plan, scores, shots) for shots in levels(plan)}
    body = []
    unflipped = 0
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for shots in levels(plan):
            mean = scores.mean(method, shots)
            if mean is None:
                row.append(f"{text.MISSING} ({len(scores.complete(method, shots))}/{len(scores.datasets)})")
                continue
            shown = f"**{mean:.1f}**" if method in best[shots] else f"{mean:.1f}"
            one = tests.across(method, shots)
            shown += one.mark if one else ""
            if scores.unflipped(method, shots):
                shown += UNFLIPPED
            zero = scores.mean(baseline, shots) if baseline else None
            if zero is not None and method != baseline:
                shown += f" ({text.points(mean - zero)})"
            row.append(shown)
        if shot_levels(plan):
            unflipped += sum(scores.unflipped(method, shots) for shots in shot_levels(plan))
        body.append(row)
    header = ["Method", *(level_name(shots) for shots in levels(plan))]
    notes = [
        f"Test accuracy in percent: mean over n = {text.count(len(scores.datasets), 'dataset')} of the mean over "
        f"{_seeds(plan)}" + ("; in brackets the gain over zero-shot in points." if baseline else "."),
        *family_notes(scores, tests, levels(plan)),
    ]
    if any(text.MISSING in value for row in body for value in row):
        notes.append(MISSING_NOTE)
    if unflipped:
        notes.append(unflipped_note(unflipped))
    return Table(text.table(header, body), notes)


def unflipped_note(runs: int) -> str:
    """Explains the mark; `runs` says how many runs."""
    return (
        f"{UNFLIPPED} In {text.count(runs, 'run')} behind the marked numbers no mask flipped, in the run itself or in "
        "the tower below it: mask tuning changed nothing there."
    )


def _accuracy(cell: Cell) -> str:
    """`61.2 ± 1.0`; without a spread where there is one run by design."""
    return f"{cell.mean:.1f}" if cell.planned == 1 else f"{cell.mean:.1f} ± {cell.spread:.1f}"


def dataset_table(scores: Scores, tests: Comparisons, dataset: str) -> Table:
    """Methods by shots on one dataset: mean and population standard deviation over seeds, marks within the dataset."""
    plan = scores.plan
    shots_list = shot_levels(plan)
    found = {(m, shots): scores.cell(m, dataset, shots) for m in scores.methods for shots in shots_list}
    best = {
        shots: best_of(
            {m: found[m, shots].mean for m in scores.methods if found[m, shots].complete and not scores.oracle(m)}
        )
        for shots in shots_list
    }
    body = []
    for method in scores.methods:
        row = [method_name(plan, scores, method)]
        for shots in shots_list:
            cell = found[method, shots]
            if not cell.accuracies:
                row.append(text.MISSING)
                continue
            one = tests.within(method, dataset, shots)
            shown = f"**{_accuracy(cell)}**" if cell.complete and method in best[shots] else _accuracy(cell)
            shown += (one.mark if one else "") + (UNFLIPPED if cell.unflipped else "")
            row.append(shown if cell.complete else f"{shown} ({len(cell.accuracies)}/{cell.planned} seeds)")
        body.append(row)
    families = [tests.family("within", dataset, shots) for shots in shots_list]
    notes = [f"Mean ± population standard deviation over {_seeds(plan)}."] if len(plan.config["seeds"]) > 1 else []
    if any(families):
        notes.append(within_note(plan, families))
    unflipped = sum(cell.unflipped for cell in found.values())
    if unflipped:
        notes.append(unflipped_note(unflipped))
    return Table(text.table(["Method", *map(level_name, shots_list)], body), notes)


def within_note(plan: Plan, families: Sequence[Sequence[Comparison]], per: str = "number of shots") -> str:
    """n, test and family size of the tests within one dataset or several; `per` says what has a family of its own."""
    tested = [one for family in families for one in family if one.n]
    if not tested:
        return "Nothing could be compared."
    sizes = text.spread(one.family_size for one in tested)
    refusal = ""
    if any(one.verdict == "n too small" for one in tested):
        refusal = (
            " **n too small**: with this many images and resamples p cannot go below "
            f"{text.p_value(max(one.smallest_p for one in tested))}, too coarse for any mark among {sizes} comparisons."
        )
    images = text.spread(one.n for one in tested)
    return (
        f"Marks: sign-flip permutation test against {plan.display(tested[0].control)} over n = {images} test images "
        f"({plan.config['resamples']:,} resamples), Holm within a family of {sizes} comparisons per {per}."
        f"{refusal}"
    )


def across_table(scores: Measure, tests: Comparisons, shots: int) -> Table:
    """Every method against the control over datasets, at one number of shots or on average."""
    plan = scores.plan
    body = []
    for method in scores.others:
        one = tests.across(method, shots)
        if one is None or not one.n:
            body.append([method_name(plan, scores, method), *[text.MISSING] * 8])
            continue
        body.append(
            [
                method_name(plan, scores, method),
                text.points(one.mean_difference) + one.mark,
                text.interval(one.low, one.high),
                text.points(one.median_difference),
                f"{one.wins} / {one.ties} / {one.losses}",
                text.points(one.effect, 2),
                text.p_value(one.p),
                text.p_value(one.p_holm),
                one.verdict,
            ]
        )
    header = ["Method", "mean difference", "95 % interval", "median", "wins / ties / losses", "effect", "p", "p (Holm)"]
    notes = family_notes(scores, tests, [shots])
    omnibus = tests.omnibus(shots)
    if omnibus is not None and not math.isnan(omnibus.p):
        said = (
            f"Do the methods differ at all? Friedman test with the Iman-Davenport statistic over {omnibus.family_size} "
            f"methods, n = {omnibus.n} {scores.unit}s: F = {omnibus.statistic:.2f}, p = {text.p_value(omnibus.p)}."
        )
        notes.append(said.replace("p = <", "p < ").replace("F = inf", "F = ∞"))
    return Table(text.table([*header, "verdict"], body), notes)


def difference(one: Comparison | None) -> str:
    """A cell of a matrix of comparisons: points with the mark, the interval, the corrected p."""
    if one is None or not one.n:
        return text.MISSING
    p = f"p {text.p_value(one.p_holm)}".replace("p <", "p<")
    return (
        f"{text.points(one.mean_difference)}{one.mark}"
        f"<br><sub>{text.interval(one.low, one.high)}</sub><br><sub>{p}</sub>"
    )


def within_matrix(scores: Scores, tests: Comparisons, shots: int, link: str) -> Table:
    """Methods by datasets at one number of shots: difference to the control with its interval, marked."""
    plan = scores.plan
    body = []
    for method in scores.others:
        row = [method_name(plan, scores, method)]
        for dataset in scores.datasets:
            row.append(difference(tests.within(method, dataset, shots)))
        body.append(row)
    header = ["Method", *(f"[{dataset_name(name)}]({link.format(dataset=name)})" for name in scores.datasets)]
    families = [tests.family("within", dataset, shots) for dataset in scores.datasets]
    tested = [one for family in families for one in family if one.n]
    if not tested:
        return Table(text.table(header, body), ["Nothing could be compared."])
    notes = [
        "Points above or below the control; 95 % percentile bootstrap interval over images; p of the sign-flip "
        f"permutation test, Holm within a family of {text.spread(one.family_size for one in tested)} comparisons per "
        f"dataset. n = {text.spread(one.n for one in tested)} test images, correctness averaged over the seeds that "
        "both methods have."
    ]
    return Table(text.table(header, body), notes)


def within_table(scores: Scores, tests: Comparisons, dataset: str, shots: int) -> Table:
    """Every method against the control on one dataset at one number of shots, with McNemar's p by seed."""
    plan = scores.plan
    body = []
    for method in scores.others:
        one = tests.within(method, dataset, shots)
        if one is None or not one.n:
            body.append([method_name(plan, scores, method), *[text.MISSING] * 7])
            continue
        by_seed = [
            test.p for test in tests.diagnostics if (test.dataset, test.shots, test.method) == (dataset, shots, method)
        ]
        body.append(
            [
                method_name(plan, scores, method),
                text.points(one.mean_difference) + one.mark,
                text.interval(one.low, one.high),
                f"{one.wins} / {one.ties} / {one.losses}",
                text.p_value(one.p),
                text.p_value(one.p_holm),
                one.verdict,
                ", ".join(map(text.p_value, by_seed)),
            ]
        )
    header = ["Method", "difference", "95 % interval", "images better / equal / worse", "p", "p (Holm)", "verdict"]
    family = tests.family("within", dataset, shots)
    return Table(
        text.table([*header, "McNemar p by seed"], body),
        [
            within_note(plan, [family]),
            "McNemar's exact test by seed is a diagnostic: uncorrected, and no mark rests on it.",
        ],
    )


def seeds_table(scores: Scores, rows: Sequence[Row], dataset: str) -> Table:
    """Every run on one dataset: accuracy by seed, and the other metrics averaged over the seeds that are there."""
    plan = scores.plan
    seeds = plan.config["seeds"]
    body = []
    for method in scores.methods:
        planned = plan.methods[method]
        for shots in shot_levels(plan) if planned.entry.few_shot else [0]:
            cell = scores.cell(method, dataset, shots)
            mine = [
                row
                for row in rows
                if (row["method"], row["dataset"], row["shots"]) == (method, dataset, shots)
                and cells.Setting(row["protocol"], row["backbone"], row["eval_set"]) == scores.setting
            ]
            if planned.entry.few_shot:
                by_seed = [f"{cell.accuracies[s]:.2f}" if s in cell.accuracies else text.MISSING for s in seeds]
            else:
                by_seed = [f"{cell.mean:.2f}" if cell.accuracies else text.MISSING, *[text.NOTHING] * (len(seeds) - 1)]
            averages = [
                f"{sum(row[name] for row in mine) / len(mine):.2f}" if mine else text.NOTHING
                for name in ("accuracy", "class_accuracy", "cross_entropy", "calibration_error")
            ]
            body.append([method_name(plan, scores, method), str(shots) if shots else "none", *by_seed, *averages])
    header = ["Method", "shots", *(f"seed {seed}" for seed in seeds), "mean", "class mean", "cross-entropy", "ECE"]
    notes = [
        f"Accuracy in percent on n = {scores.images.get(dataset, 0):,} test images; class mean: mean accuracy over "
        "classes; cross-entropy in nats per image; ECE: expected calibration error, 15 bins, percent. Nothing is "
        "tested in this table. A method that uses no shots and no seed has one run."
    ]
    return Table(text.table(header, body, left=2), notes)
