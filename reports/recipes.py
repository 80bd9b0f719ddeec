"""What each method cost, how its settings were selected, and its effective hyperparameters with their source."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reports import text
from reports.cells import VALIDATION, dataset_name, level_name, shot_levels, taking_part
from reports.rows import Row
from reports.tables import Table
from rmt.plan import Plan, PlannedMethod

RULES = {
    "fixed": "fixed beforehand",
    "val": "few-shot validation images",
    "test_oracle": "**the test set** (oracle)",
}
"""Words for `selection.rule`."""


def _runs(rows: Iterable[Row], protocol: str, backbone: str) -> list[Row]:
    """One row per run: a run with several evaluation sets cost and selected once."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if (row["protocol"], row["backbone"]) == (protocol, backbone) and row["eval_set"] != VALIDATION:
            kept.setdefault((row["dataset"], row["method"], row["shots"], row["seed"]), row)
    return list(kept.values())


def cost_table(plan: Plan, rows: Iterable[Row], protocol: str, backbone: str) -> Table:
    """Median seconds of tuning by shots; sizes and masked fraction as ranges over runs."""
    runs = _runs(rows, protocol, backbone)
    body = []
    for method in taking_part(plan, protocol):
        planned = plan.methods[method]
        mine = [row for row in runs if row["method"] == method]
        cells = [text.escaped(plan.display(method))]
        for shots in shot_levels(plan):
            taken = [
                row["cost.seconds.tune"] for row in mine if row["shots"] == (shots if planned.entry.few_shot else 0)
            ]
            cells.append(text.seconds(statistics.median(taken)) if taken else text.MISSING)
        shares = [row["tuning.masked_fraction"] for row in mine if row["tuning.masked_fraction"] is not None]
        cells += [
            text.spread(row["tuning.optimisation_steps"] for row in mine),
            text.spread(row["tuning.trainable_parameters"] for row in mine),
            text.spread_of_sizes([row["tuning.adapter_bytes"] for row in mine]),
            _masked([100 * share for share in shares]),
        ]
        body.append(cells)
    header = [
        "Method",
        *(f"tuning s, {level_name(shots)}" for shots in shot_levels(plan)),
        "steps",
        "trainable parameters",
        "adapter",
        "masked %",
    ]
    devices = Counter(f"{row['provenance.device']}, {text.count(row['provenance.threads'], 'thread')}" for row in runs)
    notes = [
        f"Seconds: median over the runs (n = {text.count(len(plan.trained_on(protocol)), 'dataset')} × "
        f"{text.count(len(plan.config['seeds']), 'seed')}, less those missing), search on validation images "
        "included, loading and evaluation not. Other columns: smallest to largest value over runs; masked %: median "
        "(range). Nothing here is tested.",
    ]
    if any(plan.methods[method].below for method in taking_part(plan, protocol)):
        notes.append("A stack (A + B, A on B's prompts): its own cost only; that of tuning B comes on top.")
    if devices:
        measured = [f"{text.escaped(device)} ({text.count(number, 'run')})" for device, number in devices.items()]
        notes.append(f"Measured on {text.listed(measured)}; the machine may have been shared.")
    return Table(text.table(header, body), notes)


def _masked(percents: Sequence[float]) -> str:
    """`2.40 (0.20–6.30)`: median and range, or the one value."""
    if not percents:
        return text.NOTHING
    extent = text.spread(percents, "{:.2f}")
    median = f"{statistics.median(percents):.2f}"
    return median if median == extent else f"{median} ({extent})"


def _chosen(runs: Sequence[Row]) -> str:
    """What the selection picked: the range of numbers, or each value with its number of runs."""
    values: dict[str, list[Any]] = {}
    for row in runs:
        for name, value in row["selection.chosen"].items():
            values.setdefault(name, []).append(value)
    parts = []
    for name, found in values.items():
        numbers = [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) == len(found) and len(set(numbers)) > 4:
            shown = f"{min(numbers):.3g} to {max(numbers):.3g}, median {statistics.median(numbers):.3g}"
        else:
            counted = sorted(Counter(map(_shown, found)).items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{value} × {runs}" for value, runs in counted)
        parts.append(f"{text.code(name)}: {shown}")
    return "; ".join(parts) or text.NOTHING


def selection_table(plan: Plan, rows: Iterable[Row], protocol: str, backbone: str) -> Table:
    """How hyperparameters and the evaluated step were chosen, per method."""
    runs = _runs(rows, protocol, backbone)
    body = []
    for method in taking_part(plan, protocol):
        mine = [row for row in runs if row["method"] == method]
        rules = list(dict.fromkeys(RULES[row["selection.rule"]] for row in mine))
        checkpoints = {"last": "last step", "best": "best step", "none": "no steps"}
        body.append(
            [
                text.escaped(plan.display(method)),
                text.listed(rules) if rules else text.MISSING,
                text.listed(list(dict.fromkeys(checkpoints[row["selection.checkpoint"]] for row in mine)))
                if mine
                else text.MISSING,
                _chosen(mine),
                text.spread(row["selection.candidates"] for row in mine),
                text.spread(row["selection.images"] for row in mine),
            ]
        )
    header = ["Method", "chosen on", "evaluated", "chosen values × runs", "settings compared", "validation images"]
    note = "Ranges are over runs. Selection never looks at the test images, unless the table says so in bold."
    return Table(text.table(header, body, left=4), [note])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return text.escaped(value if isinstance(value, str) else json.dumps(value))


def by_cell(values: Mapping[tuple[str, int], Any]) -> str:
    """A value per (dataset, shots) in as few words as it allows.

    `30`; `120 (2 shots), 200 (16 shots)`; `8e-05 (3e-05 on ImageNet)`; or all distinct values.
    """
    shown = {cell: _shown(value) for cell, value in values.items()}
    distinct = list(dict.fromkeys(shown.values()))
    if len(distinct) <= 1:
        return distinct[0] if distinct else text.NOTHING
    by_shots: dict[int, set[str]] = {}
    by_dataset: dict[str, set[str]] = {}
    for (dataset, shots), value in shown.items():
        by_shots.setdefault(shots, set()).add(value)
        by_dataset.setdefault(dataset, set()).add(value)
    if all(len(found) == 1 for found in by_shots.values()):
        return ", ".join(f"{min(found)} ({level_name(shots)})" for shots, found in sorted(by_shots.items()))
    if all(len(found) == 1 for found in by_dataset.values()):
        usual = Counter(min(found) for found in by_dataset.values()).most_common(1)[0][0]
        rest = [f"{min(found)} on {dataset_name(name)}" for name, found in by_dataset.items() if found != {usual}]
        return f"{usual} ({', '.join(rest)})"
    return f"{', '.join(distinct)} (by dataset and shots)"


class Recipe(NamedTuple):
    """Hyperparameters of one method, for the page."""

    title: str
    number: str
    differing: int
    table: str


def _defaults(planned: PlannedMethod, name: str, cells: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    default = planned.entry.defaults[name]
    # As JSON holds it, so that a tuple equals the list in a record.
    return {cell: json.loads(json.dumps(default.resolve(*cell))) for cell in cells}


def _effective(plan: Plan, rows: Iterable[Row], protocol: str, backbone: str) -> dict[str, dict[tuple[str, int], Any]]:
    """Hyperparameters by method and (dataset, shots): from the records, or as planned where a method has none."""
    runs = _runs(rows, protocol, backbone)
    found = {}
    for method in taking_part(plan, protocol):
        planned = plan.methods[method]
        found[method] = {
            (row["dataset"], row["shots"]): row["hyperparameters"] for row in runs if row["method"] == method
        } or {
            (dataset, shots): planned.hyperparameters(dataset, shots)
            for dataset in plan.trained_on(protocol)
            for shots in (shot_levels(plan) if planned.entry.few_shot else [0])
        }
    return found


def alike(plan: Plan, rows: Sequence[Row], backbone: str) -> list[list[str]]:
    """The planned protocols in groups that share every method's hyperparameters on every dataset that they share."""
    groups: list[tuple[list[str], dict[str, dict[tuple[str, int], Any]]]] = []
    for protocol in plan.config["protocols"]:
        mine = _effective(plan, rows, protocol, backbone)
        for names, theirs in groups:
            if all(
                theirs.get(method, {}).get(cell, values) == values
                for method, cells in mine.items()
                for cell, values in cells.items()
            ):
                names.append(protocol)
                for method, cells in mine.items():
                    theirs.setdefault(method, {}).update(cells)
                break
        else:
            groups.append(([protocol], mine))
    return [names for names, _ in groups]


def recipes(plan: Plan, rows: Sequence[Row], protocols: Sequence[str], backbone: str) -> list[Recipe]:
    """Effective hyperparameters of every method that has any, under protocols that are `alike`."""
    known: dict[str, dict[tuple[str, int], Any]] = {}
    for protocol in protocols:
        for method, cells in _effective(plan, rows, protocol, backbone).items():
            known.setdefault(method, {}).update(cells)
    found = []
    for method, effective in known.items():
        planned = plan.methods[method]
        names = dict.fromkeys(name for values in effective.values() for name in values)
        body = []
        differing = 0
        for name in names:
            values = {cell: given[name] for cell, given in effective.items() if name in given}
            if name not in planned.entry.defaults:
                body.append([text.code(name), by_cell(values), text.NOTHING, "written by the run"])
                continue
            defaults = _defaults(planned, name, values)
            source = text.escaped(planned.entry.defaults[name].source)
            if values == defaults:
                body.append([text.code(name), by_cell(values), "same", source])
            else:
                differing += 1
                origin = "this benchmark's config" if name in planned.overrides else "the run"
                body.append(
                    [text.code(name), f"**{by_cell(values)}**", by_cell(defaults), f"{origin}; default: {source}"]
                )
        if body:
            header = ["hyperparameter", "value", "registry default", "source"]
            found.append(
                Recipe(
                    plan.display(method),
                    text.count(len(body), "hyperparameter"),
                    differing,
                    text.table(header, body, left=4),
                )
            )
    return found
