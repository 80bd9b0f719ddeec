"""CSV files with typed columns that read back exactly what was written."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from rmt.records import BadRecord, atomic

Kind = Literal["text", "int", "float", "bool", "json"]
Row = dict[str, Any]


def _written(value: Any, kind: Kind) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if kind == "json":
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    if kind == "bool":
        return "true" if value else "false"
    # repr is the shortest text that reads back as the same double.
    return repr(float(value)) if kind == "float" else str(value)


def _parsed(text: str, kind: Kind) -> Any:
    if text == "":
        return None
    if kind == "json":
        return json.loads(text)
    if kind == "bool":
        return {"true": True, "false": False}[text]
    return {"int": int, "float": float, "text": str}[kind](text)


def write(path: Path, rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> None:
    """Write rows as CSV, whole or not at all; None and NaN become empty fields."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(kinds)
        for row in rows:
            writer.writerow([_written(row[name], kind) for name, kind in kinds.items()])


def read(path: Path, kinds: Mapping[str, Kind]) -> list[Row]:
    """Rows of a CSV that `write` has written; empty fields are None.

    Raises:
        FileNotFoundError: there is no such file.
        BadRecord: a column is missing or a field is not of its kind.
    """
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in kinds if name not in (reader.fieldnames or [])]
        if missing:
            raise BadRecord(f"{path}: column {missing[0]!r} is missing; was it written by another version?")
        for line in reader:
            row: Row = {}
            for name, kind in kinds.items():
                try:
                    row[name] = _parsed(line[name] or "", kind)
                except (ValueError, KeyError) as error:
                    message = f"{path}: line {reader.line_num}: column {name!r}: {line[name]!r} is not of kind {kind}"
                    raise BadRecord(message) from error
            found.append(row)
    return found
