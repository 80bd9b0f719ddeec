"""One run, from a few-shot sample to its four files; and several runs in one process, because importing torch costs
more than many a fit."""

import csv
import hashlib
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save as safetensors_bytes

from rmt import evaluate, methods, records, registry
from rmt.data import Sample, read_sample
from rmt.errors import UserError, shown
from rmt.job import Job, prepare
from rmt.methods import Tuned
from rmt.resume import Progress, Stop

PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "safetensors")


@cache
def _source_commit() -> tuple[str | None, bool | None]:
    """(commit, uncommitted changes to tracked files) of the checkout that holds this code."""
    root = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


@cache
def source_digest() -> str:
    """Digest of this package's sources: a fit that was cut short is taken up again by the same code only."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).resolve().parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on a CUDA GPU, else resident of this process so far (Apple's GPU keeps no peak)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@dataclass
class Fitted:
    """A run in memory: its record, its predictions by evaluation set, what tuning gave, the adapter's bytes."""

    record: dict[str, Any]
    predictions: dict[str, pa.Table]
    tuned: Tuned
    adapter: bytes


def run(job: Job, sample: Sample | None, path: Path | None = None, progress: Progress | None = None) -> Fitted:
    """Tune and evaluate one cell; `path` is the sample's file, for the record."""
    identity = job.identity(sample)
    settings = job.method.hyperparameters(identity.dataset, identity.shots)
    started, clock = datetime.now(UTC), time.perf_counter()
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    task, questions = prepare(job, sample, settings, progress or Progress())
    prepared = time.perf_counter()
    tuned = methods.tune(job.method.use, task)
    tuned_at = time.perf_counter()
    answer = methods.answer(job.method.use, task, tuned.adapter, tuned.chosen)
    with torch.no_grad():
        # The only place where answers meet labels.
        tables = {
            one.asked.name: evaluate.predictions(one.asked.name, one.paths, one.labels, one.logits(answer))
            for one in questions
        }
    evaluated = time.perf_counter()

    adapter = safetensors_bytes({name: value.contiguous() for name, value in tuned.adapter.items()})
    total, flipped = tuned.masks or (None, None)
    commit, dirty = _source_commit()
    below = job.below(sample)
    entry = registry.BACKBONES[job.backbone]
    record = {
        "schema": records.SCHEMA,
        "identity": identity.as_dict(),
        "method": {
            "use": job.method.use,
            "below": job.method.below,
            "label": registry.display_label(
                job.method.use, None if below is None else records.read(below)["method"]["use"]
            ),
            "citation": registry.METHODS[job.method.use].citation,
        },
        "task": {"classes": list(task.classes), "template": task.template},
        "backbone": {
            "architecture": entry.architecture,
            "pretrained": entry.pretrained,
            "checkpoint": None if entry.checkpoint is None else shown(Path(entry.checkpoint)),
            "pixels": entry.image_pixels,
            "resize": entry.resize,
        },
        "hyperparameters": settings | {"precision": "float32"},
        "selection": {
            "rule": tuned.rule,
            "checkpoint": tuned.checkpoint if tuned.steps else "none",
            "chosen": tuned.chosen,
            "candidates": tuned.candidates,
            "images": len(sample.val) if sample is not None and tuned.rule == "val" else 0,
        },
        "metrics": {name: evaluate.metrics(table) for name, table in tables.items()},
        "tuning": {
            "optimisation_steps": tuned.steps,
            "trainable_parameters": tuned.trainable_parameters,
            "adapter_bytes": len(adapter),
            "masks_total": total,
            "masks_flipped": flipped,
            "masked_fraction": None if total is None or flipped is None else flipped / total,
        },
        "cost": {
            "seconds": {
                "prepare": prepared - clock,
                "tune": tuned_at - prepared,
                "evaluate": evaluated - tuned_at,
            },
            "images_per_second": tuned.images_seen / (tuned_at - prepared) if tuned.images_seen else None,
            "peak_memory_bytes": peak_memory(job.device),
            "started": started.isoformat(),
            "ended": datetime.now(UTC).isoformat(),
        },
        "provenance": {
            "command": _pasted([*job.command, *(["--samples", shown(path)] if path else [])]),
            "sample_sha256": None if sample is None else sample.sha256,
            "split_sha256": sample.split_sha256 if sample else job.split_sha256,
            "weights_sha256": job.weights_sha256,
            "below_sha256": None if below is None else _file_digest(below / "adapter.safetensors"),
            "commit": commit,
            "dirty": dirty,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else job.device.type,
            "threads": torch.get_num_threads(),
        },
    }
    records.check(record, str(identity.folder(job.results)))
    return Fitted(record, tables, tuned, adapter)


def _pasted(words: Sequence[str]) -> str:
    """A command line for a shell, which expands a leading `~/` only outside quotes."""
    return " ".join(f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word) for word in words)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: Path, fitted: Fitted) -> None:
    """Write a run's four files, each whole or not at all, the record last."""
    (folder / "record.json").unlink(missing_ok=True)
    with records.atomic(folder / "predictions.parquet") as path:
        pq.write_table(pa.concat_tables(fitted.predictions.values()).unify_dictionaries(), path)
    with records.atomic(folder / "curve.csv") as path, path.open("w", newline="") as file:
        curve = fitted.tuned.curve
        writer = csv.DictWriter(file, list(curve[0]) if curve else ["step"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)
    with records.atomic(folder / "adapter.safetensors") as path:
        path.write_bytes(fitted.adapter)
    records.write_json(folder / "record.json", fitted.record)


def _key(job: Job, sample: Sample | None) -> str:
    """Digest of all that determines a run's result."""
    identity = job.identity(sample)
    parts: list[Any] = [
        identity.as_dict(),
        job.method.hyperparameters(identity.dataset, identity.shots),
        sample.sha256 if sample else None,
        source_digest(),
        {name: metadata.version(name) for name in PACKAGES},
        str(job.device),
    ]
    own = job.features_file if job.reads_features else job.pack
    for path in (own, *job.targets) if own else ():
        # The index of a pack holds the digests of its images.
        parts.append(_file_digest(path if job.reads_features else path.with_suffix(".json")))
    below = job.below(sample)
    if below is not None:
        parts.append(_file_digest(below / "adapter.safetensors"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def run_all(job: Job, samples: Sequence[Path]) -> int:
    """Fit every sample (or the one run of a method without samples) and write the runs; returns how many were fitted.

    Snakemake deletes all outputs of a job that failed or was killed. So the state of a training, and every finished run
    of a group as hard links, are also kept in `results/{benchmark}/unfinished/`, taken from there when the job is
    started again with nothing changed, and forgotten when the whole job has ended.

    Raises:
        Interrupted: the process was told to stop; what was reached is kept.
    """
    cells: list[tuple[Path | None, Sample | None]] = [(path, read_sample(path)) for path in samples] or [(None, None)]
    keep = job.results / job.benchmark / "unfinished"
    kept, fitted = [], 0
    with Stop().listening() as stop:
        for path, cell in cells:
            stop.check("between two runs")
            folder = job.identity(cell).folder(job.results)
            try:
                spare = keep / _key(job, cell)
                kept.append(spare)
                if (spare / "record.json").exists():
                    _take_up(spare, folder)
                    continue
                found = run(job, cell, path, Progress(spare, job.checkpoint_seconds, stop))
            except UserError as error:
                error.add_note(f"{folder}: ")
                raise
            write(folder, found)
            fitted += 1
            if len(cells) > 1:
                _set_aside(folder, spare)
            seconds = sum(found.record["cost"]["seconds"].values())
            name, metrics = next(iter(found.record["metrics"].items()))
            print(f"{folder}: {name} accuracy {metrics['accuracy']:.2f} % in {seconds:.1f} s", flush=True)
    for spare in kept:
        shutil.rmtree(spare, ignore_errors=True)
    return fitted


def _take_up(spare: Path, folder: Path) -> None:
    """Put a run that an interrupted job had finished in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in records.FILES:
        (folder / name).unlink(missing_ok=True)
        os.link(spare / name, folder / name)
    print(f"{folder}: taken up from an earlier, interrupted job", flush=True)


def _set_aside(folder: Path, spare: Path) -> None:
    """Keep a finished run, the record last, and forget the state of its training."""
    spare.mkdir(parents=True, exist_ok=True)
    for path in spare.glob("*.progress"):
        path.unlink()
    for name in (*records.FILES[1:], records.FILES[0]):
        (spare / name).unlink(missing_ok=True)
        os.link(folder / name, spare / name)
