"""Where masks fell, of every finished run; and how far the masks of two runs agree.

Two tables. `masks.csv`: scores and masks off by run, layer and matrix. `mask_overlaps.csv`: pairs of runs of one method
that differ in the seed alone, or in the dataset alone (equal shots and seed), with the intersection of what they mask
off over the union (IoU), beside what chance would give.

Chance: two independent, uniformly random sets of the same sizes among the same scores. Masks prefer some matrices,
which alone lets sets overlap more than that; so the number of weights masked off by both is also compared with random
sets that have the same size in every matrix of every layer.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from reports import rows
from reports.collect import IDENTITY, MissingRuns
from reports.rows import Kind, Row
from rmt import packed
from rmt.packed import Part
from rmt.plan import Plan
from rmt.records import Identity

_IDENTITY: dict[str, Kind] = {name: "int" if name in ("shots", "seed") else "text" for name in IDENTITY}

PART_COLUMNS: dict[str, Kind] = _IDENTITY | {
    "layer": "text",
    "matrix": "text",
    "scores": "int",
    "off": "int",
    "fraction": "float",
}
"""masks.csv: one row per run, layer and matrix."""

OVERLAP_COLUMNS: dict[str, Kind] = {
    "benchmark": "text",
    "protocol": "text",
    "backbone": "text",
    "method": "text",
    "shots": "int",
    "between": "text",
    "dataset": "text",
    "seed": "int",
    "other_dataset": "text",
    "other_seed": "int",
    "scores": "int",
    "off": "int",
    "other_off": "int",
    "both": "int",
    "iou": "float",
    "chance_iou": "float",
    "of_smaller": "float",
    "chance_both": "float",
    "chance_both_by_matrix": "float",
}
"""mask_overlaps.csv: one row per pair; `between` is "seeds" or "datasets". `both`: weights masked off by both runs;
`of_smaller`: their share of the smaller set; `chance_both`: as many as chance would give, `chance_both_by_matrix` if
the sizes are kept in every matrix. iou, chance_iou and of_smaller are empty where a run flipped no mask."""

OVERLAPS = "mask_overlaps.csv"


def mask_methods(plan: Plan) -> list[str]:
    """Labels of the planned methods that mask weights."""
    return [label for label, method in plan.methods.items() if method.entry.masks]


def mask_runs(plan: Plan) -> list[Identity]:
    """Planned runs of the methods that mask weights."""
    labels = set(mask_methods(plan))
    return [identity for identity in plan.identities() if identity.method in labels]


@dataclass(frozen=True)
class Masked:
    """The masks of one run: counts by matrix, and the off-bits of all masks in a row."""

    identity: Identity
    parts: list[Part]
    off_bits: np.ndarray

    @property
    def off(self) -> int:
        """Masks that are off."""
        return sum(part.off for part in self.parts)


def expected_iou(scores: int, one: int, other: int) -> float:
    """Expected intersection over union of two independent, uniformly random subsets of sizes `one` and `other`.

    The intersection is hypergeometric; its mass outside fourteen standard deviations is left out.
    """
    from scipy.stats import hypergeom

    if not (one and other):
        return 0.0
    mean = one * other / scores
    deviation = np.sqrt(mean * (1 - one / scores) * (scores - other) / max(1, scores - 1))
    low = max(0, one + other - scores, int(mean - 14 * deviation) - 14)
    high = min(one, other, int(mean + 14 * deviation) + 14)
    values = np.arange(low, high + 1)
    weights = hypergeom(scores, one, other).pmf(values)
    return float((weights * values / (one + other - values)).sum() / weights.sum())


def overlap(one: Masked, other: Masked) -> Row:
    """How far the masks of two runs agree; see `OVERLAP_COLUMNS`."""
    both = int(np.bitwise_count(one.off_bits & other.off_bits).sum(dtype=np.int64))
    scores, sizes = sum(part.scores for part in one.parts), (one.off, other.off)
    there = min(sizes) > 0
    return {
        "scores": scores,
        "off": sizes[0],
        "other_off": sizes[1],
        "both": both,
        "iou": both / (sum(sizes) - both) if there else None,
        "chance_iou": expected_iou(scores, *sizes) if there else None,
        "of_smaller": both / min(sizes) if there else None,
        "chance_both": sizes[0] * sizes[1] / scores,
        "chance_both_by_matrix": sum(a.off * b.off / a.scores for a, b in zip(one.parts, other.parts, strict=True)),
    }


def pairs(runs: Sequence[Masked]) -> Iterator[tuple[str, Masked, Masked]]:
    """Pairs of runs of one method, backbone, protocol and number of shots that differ in seed or dataset alone."""
    for one, other in combinations(runs, 2):
        a, b = one.identity, other.identity
        if a.dataset == b.dataset and a.seed != b.seed:
            yield "seeds", one, other
        elif a.dataset != b.dataset and a.seed == b.seed:
            yield "datasets", one, other


def _read(folder: Path, identity: Identity) -> Masked:
    masks = packed.read(folder / "adapter.safetensors")
    return Masked(identity, packed.parts(masks), packed.off_bits(masks))


def measure(plan: Plan, partial: bool = False) -> tuple[list[Row], list[Row]]:
    """(rows of masks.csv, rows of mask_overlaps.csv), in the order of the plan.

    One method's runs of one number of shots are in memory at a time: for ViT-B/16, 3.6 MB each.

    Raises:
        MissingRuns: a planned run has no record and `partial` is False.
        BadMasks: the adapter of a finished run is missing or damaged.
    """
    results = Path(plan.config["results_folder"])
    groups: dict[tuple[str, str, str, int], list[Identity]] = defaultdict(list)
    planned, missing = mask_runs(plan), []
    for run in planned:
        if (run.folder(results) / "record.json").is_file():
            groups[run.protocol, run.backbone, run.method, run.shots].append(run)
        else:
            missing.append(run.folder(results))
    if missing and not partial:
        raise MissingRuns(
            f"{len(missing)} of {len(planned)} planned runs with masks have no record, the first is {missing[0]}; "
            "finish them, or measure what there is with --partial"
        )
    found: list[Row] = []
    overlaps: list[Row] = []
    for (protocol, backbone, method, shots), identities in groups.items():
        runs = [_read(identity.folder(results), identity) for identity in identities]
        for masked in runs:
            found += [
                masked.identity.as_dict()
                | {"layer": part.layer, "matrix": part.matrix, "scores": part.scores, "off": part.off}
                | {"fraction": part.fraction}
                for part in masked.parts
            ]
        group = {"benchmark": plan.benchmark, "protocol": protocol, "backbone": backbone, "method": method}
        for between, one, other in pairs(runs):
            overlaps.append(
                group
                | {"shots": shots, "between": between}
                | {"dataset": one.identity.dataset, "seed": one.identity.seed}
                | {"other_dataset": other.identity.dataset, "other_seed": other.identity.seed}
                | overlap(one, other)
            )
    return found, overlaps


def write(path: Path, found: Iterable[Row], overlaps: Iterable[Row]) -> None:
    """Write masks.csv, and mask_overlaps.csv beside it."""
    rows.write(path.with_name(OVERLAPS), overlaps, OVERLAP_COLUMNS)
    rows.write(path, found, PART_COLUMNS)


def read(path: Path, plan: Plan) -> tuple[list[Row], list[Row]]:
    """Rows of masks.csv and of mask_overlaps.csv beside it, of what is planned.

    Raises:
        FileNotFoundError: there is no such file.
        BadRecord: not such a file.
    """
    planned = set(mask_runs(plan))
    cells = {(run.protocol, run.backbone, run.method, run.shots, run.dataset, run.seed) for run in planned}

    def kept(row: Row, prefix: str = "") -> bool:
        own = tuple(row[name] for name in ("protocol", "backbone", "method", "shots"))
        return (*own, row[f"{prefix}dataset"], row[f"{prefix}seed"]) in cells

    parts = [row for row in rows.read(path, PART_COLUMNS) if kept(row)]
    overlaps = rows.read(path.with_name(OVERLAPS), OVERLAP_COLUMNS)
    return parts, [row for row in overlaps if kept(row) and kept(row, "other_")]
