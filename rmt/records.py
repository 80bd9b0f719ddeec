"""A run on disk: RUN/record.json, predictions.parquet, curve.csv, adapter.safetensors.

The record is written last and atomically, so a folder with a record is a finished run.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from rmt.errors import UserError

SCHEMA = 2
"""The record's schema that this code writes and reads."""

FILES = ("record.json", "predictions.parquet", "curve.csv", "adapter.safetensors")
"""The four files of a run."""

PREDICTION_COLUMNS = ("eval_set", "path", "label", "predicted", "probability", "confidence", "margin")
"""predictions.parquet, one row per evaluation image: evaluation set; image path as in the split; class index; predicted
class index; probability of the label; probability of the predicted class; logit of the label less the largest other
logit (positive: correct)."""


@dataclass(frozen=True, order=True)
class Identity:
    """What makes a run this run and no other; its path under `results/`."""

    benchmark: str
    protocol: str
    backbone: str
    dataset: str
    method: str
    shots: int
    seed: int

    def folder(self, results: Path = Path("results")) -> Path:
        """RUN, the run's folder below the results folder."""
        return (
            results
            / self.benchmark
            / "runs"
            / self.protocol
            / self.backbone
            / self.dataset
            / self.method
            / f"{self.shots}shot"
            / f"seed{self.seed}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The seven fields in order."""
        return asdict(self)


class BadRecord(UserError):
    """A record that breaks the contract; the message names the file and the field."""


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(Path(__file__).with_name("record.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def check(record: Mapping[str, Any], where: str = "record") -> None:
    """Compare a record with the contract `rmt/record.schema.json`.

    Raises:
        BadRecord: naming `where` and the first offending field.
    """
    for error in sorted(_validator().iter_errors(record), key=lambda error: list(map(str, error.path))):
        field = ".".join(map(str, error.path)) or "top level"
        if record.get("schema") != SCHEMA:
            raise BadRecord(
                f"{where}: schema: written by another version (schema {record.get('schema')}, this one reads "
                f"{SCHEMA}); delete the run's folder and run it again"
            )
        raise BadRecord(f"{where}: {field}: {error.message}")


def read(folder: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        FileNotFoundError: the run has not finished.
        BadRecord: the file is not a valid record.
    """
    path = folder / "record.json"
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise BadRecord(f"{path}: not JSON ({error}); delete the file and run again") from error
    check(record, str(path))
    return record


def without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that the same seed on the same machine repeats to the bit: all but `cost`."""
    return {key: value for key, value in record.items() if key != "cost"}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that replaces it when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
