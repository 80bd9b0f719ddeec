"""The page's section "What was masked": shares by layer and matrix, and how far seeds and datasets agree."""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from reports import text
from reports.cells import dataset_name, shot_levels
from reports.masks import mask_methods
from reports.rows import Row
from reports.tables import Table
from rmt import packed, registry
from rmt.plan import Plan

Tables = tuple[list[Row], list[Row]]
"""Rows of masks.csv and of mask_overlaps.csv."""

NO_FLIP = "∅"
_OWN_ROWS = 4
"""Towers of up to so many blocks show each; of others, thirds."""


def _groups(plan: Plan) -> list[tuple[str, str]]:
    """(protocol, backbone), in the order of the plan."""
    return [(protocol, name) for protocol in plan.config["protocols"] for name in plan.config["backbones"]]


def figure_name(plan: Plan, protocol: str, backbone: str) -> str:
    """File name of the heat map; protocol and backbone are in it only where there are several."""
    return "masks.png" if len(_groups(plan)) == 1 else f"masks-{protocol}-{backbone}.png"


def _of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _share(rows: Sequence[Row]) -> float:
    """Share of masks that are off, over all rows together."""
    return sum(row["off"] for row in rows) / sum(row["scores"] for row in rows)


def _percent(share: float | None) -> str:
    """`0`, `0.03`, `2.5` or `14` percent."""
    if share is None:
        return text.NOTHING
    value = 100 * share
    return "0" if value == 0 else f"{value:.2g}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def layer_groups(layers: Sequence[str]) -> dict[str, str]:
    """The row of the table that a layer belongs to: itself, its stage in a ResNet, its third of many blocks."""
    blocks = [name for name in layers if name.startswith("block ")]
    found = {}
    for name in layers:
        stage = re.match(r"layer\d+", name)
        found[name] = stage[0] if stage else name
    if len(blocks) > _OWN_ROWS:
        for place, name in enumerate(blocks):
            third = place * 3 // len(blocks)
            members = [other.split()[1] for at, other in enumerate(blocks) if at * 3 // len(blocks) == third]
            found[name] = f"blocks {members[0]}–{members[-1]}"
    return found


def by_matrix(plan: Plan, rows: Sequence[Row]) -> Table:
    """Percent masked off by method, layer group and matrix; every run counts alike."""
    matrices = packed.matrix_order({row["matrix"] for row in rows})
    body = []
    for label in mask_methods(plan):
        mine = _of(rows, method=label)
        groups = layer_groups(list(dict.fromkeys(row["layer"] for row in mine)))
        for place, group in enumerate(dict.fromkeys([*groups.values(), "all"])):
            inside = [row for row in mine if group in ("all", groups[row["layer"]])]
            cells = [_percent(_share(found)) if (found := _of(inside, matrix=name)) else "" for name in matrices]
            name = text.escaped(plan.display(label)) if place == 0 else ""
            body.append([name, group, *cells, _percent(_share(inside))])
    runs = len({(row["method"], row["dataset"], row["shots"], row["seed"]) for row in rows})
    return Table(
        text.table(["Method", "layers", *matrices, "all"], body, left=2),
        [
            f"Percent of the scores that ended masked off, over all datasets, shots and seeds "
            f"({text.count(runs, 'run')}); blocks are numbered as in open_clip, from 0. Empty: no such matrix, or the "
            "method does not mask it."
        ],
    )


def by_dataset(plan: Plan, rows: Sequence[Row]) -> Table:
    """Percent masked off by method, shots and dataset."""
    datasets = [name for name in plan.config["datasets"] if _of(rows, dataset=name)]
    body = []
    for label in mask_methods(plan):
        mine = _of(rows, method=label)
        for place, shots in enumerate(shot_levels(plan)):
            cells, shares = [], []
            level = _of(mine, shots=shots)
            for dataset in datasets:
                found = _of(level, dataset=dataset)
                if not found:
                    cells.append(text.MISSING)
                    continue
                seeds = {row["seed"] for row in found}
                idle = any(_share(_of(found, seed=seed)) == 0 for seed in seeds)
                shares.append(_share(found))
                cells.append(_percent(shares[-1]) + (NO_FLIP if idle else ""))
            mean = _percent(statistics.fmean(shares)) if len(shares) == len(datasets) else text.MISSING
            name = text.escaped(plan.display(label)) if place == 0 else ""
            body.append([name, str(shots), *cells, mean])
    header = ["Method", "shots", *(dataset_name(name) for name in datasets), "mean"]
    return Table(
        text.table(header, body),
        [f"Percent masked off, all matrices together, mean over seeds. {NO_FLIP}: at least one run masked nothing."],
    )


def _agreement_cells(found: Sequence[Row]) -> list[str]:
    """pairs, IoU, IoU by chance, times chance, times chance by matrix, share of the smaller set."""
    there = [row for row in found if row["iou"] is not None]
    if not there:
        return [NO_FLIP if found else text.NOTHING, *[text.NOTHING] * 5]

    def mean(name: str) -> str:
        return _percent(statistics.fmean(row[name] for row in there))

    both = sum(row["both"] for row in there)
    times = [f"{both / sum(row[name] for row in there):.1f}" for name in ("chance_both", "chance_both_by_matrix")]
    idle = NO_FLIP if len(there) < len(found) else ""
    return [f"{len(there)}{idle}", mean("iou"), mean("chance_iou"), *times, mean("of_smaller")]


def agreement(plan: Plan, overlaps: Sequence[Row]) -> Table | None:
    """How far seeds and datasets agree, by method and shots; None without any pair."""
    body = []
    for label in mask_methods(plan):
        for shots in shot_levels(plan):
            for between in ("seeds", "datasets"):
                found = _of(overlaps, method=label, shots=shots, between=between)
                if found:
                    body.append([text.escaped(plan.display(label)), str(shots), between, *_agreement_cells(found)])
    if not body:
        return None
    header = ["Method", "shots", "between", "pairs", "IoU, %", "by chance, %", "× chance", "× chance by matrix",
              "of the smaller, %"]  # fmt: skip
    note = (
        "IoU: weights that both runs mask off over weights that either does, mean over pairs; *seeds*: two seeds of "
        "one dataset, *datasets*: two datasets at equal seed. *By chance*: the expected IoU of two independent random "
        "sets of the same sizes. *× chance*: weights masked off by both over those expected by chance, 1.0 being no "
        "more than chance; *by matrix*: chance with the same sizes in every matrix of every layer, so that a common "
        "preference for some matrices does not count as agreement. *Of the smaller*: share of the smaller set that the "
        f"other masks off too. {NO_FLIP}: pairs are left out in which a run masked nothing."
    )
    return Table(text.table(header, body, left=3), [note])


def dataset_matrix(plan: Plan, overlaps: Sequence[Row], label: str) -> str | None:
    """IoU of every two datasets' masks, percent, with times chance; on the diagonal, two seeds of one dataset."""
    mine = [row for row in _of(overlaps, method=label) if row["iou"] is not None]
    datasets = [
        name for name in plan.config["datasets"] if any(name in (row["dataset"], row["other_dataset"]) for row in mine)
    ]
    if len(datasets) < 2:
        return None

    def cell(one: str, other: str) -> str:
        found = [row for row in mine if {row["dataset"], row["other_dataset"]} == {one, other}]
        if not found:
            return text.NOTHING
        times = sum(row["both"] for row in found) / sum(row["chance_both"] for row in found)
        return f"{_percent(statistics.fmean(row['iou'] for row in found))} ({times:.1f}×)"

    names = [dataset_name(name) for name in datasets]
    body = [
        [f"**{name}**", *(cell(one, other) for other in datasets)] for name, one in zip(names, datasets, strict=True)
    ]
    return text.table(["IoU, %", *names], body)


def _sentence(plan: Plan, rows: Sequence[Row], overlaps: Sequence[Row], label: str) -> str:
    """The finding of one method in words."""
    name, mine = text.escaped(plan.display(label)), _of(rows, method=label)
    if not any(row["off"] for row in mine):
        return f"{name} masked nothing in any run ({NO_FLIP})."
    said = f"{name} masked {_percent(_share(mine))} % of its {_scores(mine):,} scores"
    for between, words in (("seeds", "two seeds of a dataset"), ("datasets", "two datasets")):
        found = [row for row in _of(overlaps, method=label, between=between) if row["iou"] is not None]
        if found:
            iou, chance = (statistics.fmean(row[one] for row in found) for one in ("iou", "chance_iou"))
            said += f"; {words} agree on {_percent(iou)} % (IoU), where chance gives {_percent(chance)} %"
    return said + "."


def _scores(rows: Sequence[Row]) -> int:
    """Scores of one run of a method."""
    first = rows[0]
    return sum(row["scores"] for row in _of(rows, **{name: first[name] for name in ("dataset", "shots", "seed")}))


def _main_method(plan: Plan) -> str:
    labels = mask_methods(plan)
    return plan.control if plan.control in labels else labels[0]


def sections(plan: Plan, tables: Tables, link: Callable[[str], str]) -> list[dict[str, Any]]:
    """What the template shows, per protocol and backbone with a finished run; `link` gives a figure's address."""
    found = []
    for protocol, backbone in _groups(plan):
        rows, overlaps = (_of(one, protocol=protocol, backbone=backbone) for one in tables)
        if not rows:
            continue
        labels = [label for label in mask_methods(plan) if _of(rows, method=label)]
        first = _main_method(plan)
        matrices = [
            {"method": text.escaped(plan.display(label)), "table": table, "open": label == first}
            for label in sorted(labels, key=lambda label: label != first)
            if (table := dataset_matrix(plan, overlaps, label))
        ]
        found.append(
            {
                "heading": f"{protocol}, {registry.BACKBONES[backbone].label}",
                "sentences": [_sentence(plan, rows, overlaps, label) for label in labels],
                "by_matrix": by_matrix(plan, rows),
                "by_dataset": by_dataset(plan, rows),
                "agreement": agreement(plan, overlaps),
                "matrices": matrices,
                "figure": link(figure_name(plan, protocol, backbone)) if any(row["off"] for row in rows) else "",
            }
        )
    return found


def draw(plan: Plan, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw the heat maps, one file per protocol and backbone, one panel per method that masked anything."""
    from rmt import heat_map

    written = []
    for protocol, backbone in _groups(plan):
        panels = []
        for label in mask_methods(plan):
            mine = _of(rows, protocol=protocol, backbone=backbone, method=label)
            if any(row["off"] for row in mine):
                places = dict.fromkeys((row["layer"], row["matrix"]) for row in mine)
                shares = {place: _share(_of(mine, layer=place[0], matrix=place[1])) for place in places}
                panels.append((plan.display(label), shares))
        if panels:
            written.append(folder / figure_name(plan, protocol, backbone))
            heat_map.save(heat_map.draw(panels), written[-1])
    return written
