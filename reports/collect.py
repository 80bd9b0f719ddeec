"""Every planned run's record as rows of one CSV: one row per run and evaluation set."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reports import rows
from reports.rows import Kind, Row
from rmt import records
from rmt.errors import UserError
from rmt.plan import Plan
from rmt.records import BadRecord, Identity

IDENTITY = ("benchmark", "protocol", "backbone", "dataset", "method", "shots", "seed")

COLUMNS: dict[str, Kind] = {
    "benchmark": "text",
    "protocol": "text",
    "backbone": "text",
    "dataset": "text",
    "method": "text",
    "shots": "int",
    "seed": "int",
    "eval_set": "text",
    "images": "int",
    "correct": "int",
    "accuracy": "float",
    "class_accuracy": "float",
    "cross_entropy": "float",
    "calibration_error": "float",
    "method.use": "text",
    "method.below": "text",
    "method.label": "text",
    "hyperparameters": "json",
    "selection.rule": "text",
    "selection.checkpoint": "text",
    "selection.chosen": "json",
    "selection.candidates": "int",
    "selection.images": "int",
    "tuning.optimisation_steps": "int",
    "tuning.trainable_parameters": "int",
    "tuning.adapter_bytes": "int",
    "tuning.masks_total": "int",
    "tuning.masks_flipped": "int",
    "tuning.masked_fraction": "float",
    "cost.seconds.prepare": "float",
    "cost.seconds.tune": "float",
    "cost.seconds.evaluate": "float",
    "cost.images_per_second": "float",
    "cost.peak_memory_bytes": "int",
    "cost.started": "text",
    "cost.ended": "text",
    "provenance.sample_sha256": "text",
    "provenance.split_sha256": "text",
    "provenance.weights_sha256": "text",
    "provenance.commit": "text",
    "provenance.dirty": "bool",
    "provenance.python": "text",
    "provenance.packages": "json",
    "provenance.device": "text",
    "provenance.threads": "int",
}
"""records.csv: the identity and the metrics by their own names, everything else by its path in record.json."""


class MissingRuns(UserError):
    """Planned runs without a record."""


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for name in path.split("."):
        value = value[name]
    return value


def _row(record: Mapping[str, Any], eval_set: str) -> Row:
    row: Row = dict(record["identity"]) | {"eval_set": eval_set} | dict(record["metrics"][eval_set])
    return {name: row[name] if name in row else _at(record, name) for name in COLUMNS}


def collect(plan: Plan, partial: bool = False) -> list[Row]:
    """Rows of records.csv, in the order of the plan; evaluation sets in the order of the record.

    The few-shot validation sample (`val`) is kept here; nothing downstream reads it as a result.

    Raises:
        MissingRuns: a planned run has no record and `partial` is False.
        BadRecord: a record breaks the contract, or lies in another run's folder.
    """
    results = Path(plan.config["results_folder"])
    planned = plan.identities()
    found: list[Row] = []
    missing: list[Path] = []
    for identity in planned:
        folder = identity.folder(results)
        try:
            record = records.read(folder)
        except FileNotFoundError:
            missing.append(folder)
            continue
        for name, value in identity.as_dict().items():
            if record["identity"][name] != value:
                raise BadRecord(
                    f"{folder / 'record.json'}: identity.{name}: the folder says {value!r}, "
                    f"the record {record['identity'][name]!r}"
                )
        found += [_row(record, eval_set) for eval_set in record["metrics"]]
    if missing and not partial:
        raise MissingRuns(
            f"{len(missing)} of {len(planned)} planned runs have no record, the first is {missing[0]}; "
            "finish them, or collect what there is with --partial"
        )
    return found


def write(path: Path, found: Iterable[Row]) -> None:
    """Write records.csv."""
    rows.write(path, found, COLUMNS)


def read(path: Path, plan: Plan) -> list[Row]:
    """Rows of records.csv that belong to the plan; rows of runs that are not planned (any more) are left out.

    Raises:
        FileNotFoundError: there is no such file.
        BadRecord: not a records.csv.
    """
    planned = set(plan.identities())
    return [row for row in rows.read(path, COLUMNS) if identity_of(row) in planned]


def identity_of(row: Row) -> Identity:
    """The run that a row belongs to."""
    return Identity(**{name: row[name] for name in IDENTITY})


def missing_runs(plan: Plan, found: Iterable[Row]) -> list[Identity]:
    """Planned runs that have no row."""
    present = {identity_of(row) for row in found}
    return [identity for identity in plan.identities() if identity not in present]
