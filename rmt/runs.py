"""A finished run as its user names it, by its folder or its record.json; and the run that it stands on, beside it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmt import records, registry
from rmt.errors import UserError, shown
from rmt.records import SCHEMA


class BadRun(UserError):
    """A folder that is no finished run, or a run that is not whole; one line that says what is missing and where."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its record."""

    folder: Path
    record: dict[str, Any]

    @property
    def use(self) -> str:
        """Registered method."""
        return self.record["method"]["use"]

    @property
    def identity(self) -> records.Identity:
        """What makes it this run."""
        return records.Identity(**self.record["identity"])

    @property
    def adapter(self) -> Path:
        """The file of what was learnt.

        Raises:
            BadRun: it is not there.
        """
        path = self.folder / "adapter.safetensors"
        if not path.is_file():
            raise BadRun(
                f"{shown(path)}: missing, and without it nothing is left of what was learnt; fit the run again"
            )
        return path

    @property
    def adapter_sha256(self) -> str:
        """Digest of that file."""
        return hashlib.sha256(self.adapter.read_bytes()).hexdigest()

    @property
    def title(self) -> str:
        """For example `R-AMT on digits, 8 shots, seed 1, tiny CLIP`."""
        one = self.identity
        plain = f"{self.use}+{self.record['method']['below']}" if self.record["method"]["below"] else self.use
        label = self.record["method"]["label"] + ("" if one.method == plain else f" ({one.method})")
        cell = f", {one.shots} shot{'s' * (one.shots != 1)}, seed {one.seed}" if one.shots else ""
        backbone = registry.BACKBONES[one.backbone].label if one.backbone in registry.BACKBONES else one.backbone
        return f"{label} on {one.dataset}{cell}, {backbone}"

    def below(self) -> "Run | None":
        """The finished run that this one stands on, found beside it; None for a run on the frozen CLIP.

        Raises:
            BadRun: it is not there, or its adapter is another one than this run was fitted on.
        """
        label = self.record["method"]["below"]
        if label is None:
            return None
        folder = self.folder.parents[2] / label / self.folder.parent.name / self.folder.name
        if not (folder / "record.json").is_file():
            raise BadRun(
                f"{shown(self.folder)}: it stands on the run of {label} that was at {shown(folder)} and is not there; "
                "put it back"
            )
        found = open_run(folder)
        if found.adapter_sha256 != self.record["provenance"]["below_sha256"]:
            raise BadRun(
                f"{shown(self.folder)}: it was fitted on another adapter than {shown(found.adapter)} (sha256 "
                f"{self.record['provenance']['below_sha256'][:12]}, found {found.adapter_sha256[:12]}); fit it again"
            )
        return found


def open_run(path: Path) -> Run:
    """The finished run of a folder, or of its record.json.

    Raises:
        BadRun: there is no finished run, or one that another version of this code has made.
        BadRecord: the record breaks the contract.
    """
    folder = (path.parent if path.name == "record.json" else path).resolve()
    file = folder / "record.json"
    if not folder.is_dir():
        raise BadRun(f"{path}: no such folder; name a run, results/BENCHMARK/runs/PROTOCOL/.../METHOD/8shot/seed1")
    if not file.is_file():
        inside = next(folder.glob("**/record.json"), None)
        hint = f"; did you mean {shown(inside.parent)}?" if inside else "; a finished run has one"
        raise BadRun(f"{path}: not the folder of a finished run, it has no record.json{hint}")
    try:
        schema = json.loads(file.read_text()).get("schema")
    except (ValueError, AttributeError, UnicodeDecodeError):
        schema = SCHEMA  # whatever it is, `records.read` says it
    if schema != SCHEMA:
        raise BadRun(
            f"{shown(file)}: written by another version (its schema is {schema}, this one reads {SCHEMA}), so it does "
            "not hold all that is needed; fit the run again"
        )
    record = records.read(folder)
    if record["method"]["use"] not in registry.METHODS:
        raise BadRun(f"{shown(file)}: its method {record['method']['use']!r} is not registered here (rmt/registry.py)")
    return Run(folder, record)
