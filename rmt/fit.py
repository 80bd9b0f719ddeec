"""One run, from a few-shot sample to its four files; and several runs in one process, because importing torch costs
more than many a fit."""

import csv
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from rmt import evaluate, features, masks, records, registry
from rmt.data import BadData, Pack, Sample, check_transform, read_pack, read_sample
from rmt.errors import UserError
from rmt.methods import EvaluationSet, Task, Tuned, implementation
from rmt.plan import PlannedMethod

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


@dataclass
class Job:
    """What the runs of one process share: one method on one dataset and backbone."""

    benchmark: str
    protocol: str
    backbone: str
    method: PlannedMethod
    results: Path
    device: torch.device
    pack: Pack | None = None
    images: Path | None = None
    features_file: Path | None = None
    views: int = 10
    workers: int = 0
    clip_cache: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def frozen_features(self) -> features.Features:
        """The cached features of the frozen tower."""
        if self.features_file is None:
            raise BadData("this method reads cached features; name the file by --features")
        return features.load(self.features_file)

    def frozen_clip(self) -> Any:
        """The backbone, loaded once per process."""
        if "frozen" not in self.clip_cache:
            from rmt import backbones  # here, because methods on cached features need no open_clip

            self.clip_cache["frozen"] = backbones.load(self.backbone, self.device)
        return self.clip_cache["frozen"]


def _needed_pack(job: Job) -> Pack:
    if job.pack is None or job.images is None:
        raise BadData("this method reads images; name them by --pack and --images")
    return job.pack


def _tower_run(job: Job, identity: records.Identity) -> Path:
    """Folder of the finished run below a stack."""
    below = records.Identity(**(identity.as_dict() | {"method": job.method.tower})).folder(job.results)
    if not (below / "record.json").exists():
        raise BadData(
            f"{below}: no finished run of {job.method.tower}, which {identity.method} stands on; fit it first"
        )
    return below


def _tuned_clip(job: Job, identity: records.Identity) -> Any:
    """The backbone with the masks of the finished run below a stack folded in."""
    clip = deepcopy(job.frozen_clip())
    masks.fold(clip.visual, masks.unpack(load_file(_tower_run(job, identity) / "adapter.safetensors")))
    return clip


def _feature_task(job: Job, sample: Sample | None, settings: Mapping[str, Any]) -> tuple[Task, list[EvaluationSet]]:
    frozen = job.frozen_features
    task = Task(
        sample=sample,
        classes=tuple(frozen.metadata["classes"]),
        template=frozen.metadata["template"],
        hyperparameters=settings,
        logit_scale=frozen.metadata["logit_scale"],
        read_features=lambda: frozen,
    )

    def no_pixels() -> Any:
        raise BadData("a method registered as needing features only asked for images")

    sets = [EvaluationSet("test", no_pixels, lambda: frozen.test)]
    if sample is not None:
        sets.append(EvaluationSet("val", no_pixels, lambda: frozen.of(sample.val)))
    return task, sets


def _image_task(
    job: Job, identity: records.Identity, sample: Sample, settings: Mapping[str, Any]
) -> tuple[Task, list[EvaluationSet]]:
    from rmt.images import test_pixels  # here, because methods on cached features need no torchvision

    pack, images = _needed_pack(job), job.images
    assert images is not None
    clip = _tuned_clip(job, identity) if job.method.tower else job.frozen_clip()
    check_transform(pack, job.backbone, clip.transform)

    @cache
    def computed() -> features.Features:
        text = clip.text_features(pack.classes, pack.template)
        return features.encode(clip, [sample], images, pack.pixels, pack.labels, text, job.views, {})

    task = Task(
        sample=sample,
        classes=pack.classes,
        template=pack.template,
        hyperparameters=settings,
        logit_scale=clip.logit_scale,
        read_features=computed,
        clip=clip,
        images=images,
        workers=job.workers,
    )

    def val_pixels() -> Any:
        return test_pixels(images, [path for path, _ in sample.val], clip.pixels, clip.resize)

    sets = [
        EvaluationSet("test", lambda: pack.pixels, lambda: clip.encode_images(pack.pixels)),
        EvaluationSet("val", val_pixels, lambda: clip.encode_images(val_pixels())),
    ]
    return task, sets


def _answers(job: Job, sample: Sample | None, sets: Sequence[EvaluationSet], tuned: Tuned) -> dict[str, pa.Table]:
    """Predictions per evaluation set; the only place where answers meet labels."""
    if job.pack is not None:
        paths, labels = list(job.pack.paths), torch.tensor(job.pack.labels)
    else:
        paths, labels = job.frozen_features.metadata["paths"], job.frozen_features.test_labels
    truth = {"test": (paths, labels)}
    if sample is not None:
        truth["val"] = ([path for path, _ in sample.val], torch.tensor([label for _, label in sample.val]))
    with torch.no_grad():
        return {
            one.name: evaluate.predictions(one.name, *truth[one.name], tuned.logits(one).float().cpu()) for one in sets
        }


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on a CUDA GPU, else resident of this process so far (Apple's GPU keeps no peak)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def run(job: Job, sample: Sample | None) -> tuple[dict[str, Any], dict[str, pa.Table], Tuned, bytes]:
    """Tune and evaluate one cell; returns the record, the predictions, what tuning gave, and the adapter's bytes."""
    identity = identity_of(job, sample)
    settings = job.method.hyperparameters(identity.dataset, identity.shots)
    started, clock = datetime.now(UTC), time.perf_counter()
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    if job.method.needs == "features":
        task, sets = _feature_task(job, sample, settings)
    else:
        assert sample is not None
        task, sets = _image_task(job, identity, sample, settings)
    prepared = time.perf_counter()
    tuned = implementation(job.method.use)(task)
    tuned_at = time.perf_counter()
    tables = _answers(job, sample, sets, tuned)
    evaluated = time.perf_counter()

    adapter = safetensors_bytes({name: value.contiguous() for name, value in tuned.adapter.items()})
    total, flipped = tuned.masks or (None, None)
    commit, dirty = _source_commit()
    frozen_hash = (
        job.frozen_features.metadata["weights_sha256"]
        if job.method.needs == "features"
        else job.frozen_clip().weights_sha256
    )
    tower = job.method.tower
    record = {
        "schema": 1,
        "identity": identity.as_dict(),
        "method": {
            "use": job.method.use,
            "tower": tower,
            "label": registry.METHODS[job.method.use].label + (f" + {tower}" if tower else ""),
            "citation": registry.METHODS[job.method.use].citation,
        },
        "hyperparameters": settings | {"precision": "float32"},
        "selection": {
            "rule": tuned.rule,
            "checkpoint": "last" if tuned.steps else "none",
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
            "sample_sha256": None if sample is None else sample.sha256,
            "split_sha256": sample.split_sha256 if sample else job.frozen_features.metadata["split_sha256"],
            "weights_sha256": frozen_hash,
            "commit": commit,
            "dirty": dirty,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else job.device.type,
            "threads": torch.get_num_threads(),
        },
    }
    records.check(record, str(identity.folder(job.results)))
    return record, tables, tuned, adapter


def identity_of(job: Job, sample: Sample | None) -> records.Identity:
    """The run's identity; a method without shots is shots 0, seed 0."""
    if sample is None:
        dataset, shots, seed = job.frozen_features.metadata["dataset"], 0, 0
    else:
        dataset, shots, seed = sample.dataset, sample.shots, sample.seed
    return records.Identity(job.benchmark, job.protocol, job.backbone, dataset, job.method.label, shots, seed)


def write(
    folder: Path, record: Mapping[str, Any], tables: Mapping[str, pa.Table], tuned: Tuned, adapter: bytes
) -> None:
    """Write a run's four files, each whole or not at all, the record last."""
    (folder / "record.json").unlink(missing_ok=True)
    with records.atomic(folder / "predictions.parquet") as path:
        pq.write_table(pa.concat_tables(tables.values()).unify_dictionaries(), path)
    with records.atomic(folder / "curve.csv") as path, path.open("w", newline="") as file:
        columns = list(tuned.curve[0]) if tuned.curve else ["step"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(tuned.curve)
    with records.atomic(folder / "adapter.safetensors") as path:
        path.write_bytes(adapter)
    records.write_json(folder / "record.json", record)


def _key(job: Job, sample: Sample | None) -> str:
    """Digest of all that determines a run's result."""
    identity = identity_of(job, sample)
    parts: list[Any] = [
        identity.as_dict(),
        job.method.hyperparameters(identity.dataset, identity.shots),
        sample.sha256 if sample else None,
        source_digest(),
        {name: metadata.version(name) for name in PACKAGES},
        str(job.device),
    ]
    if job.method.needs == "features" and job.features_file:
        parts.append(hashlib.sha256(job.features_file.read_bytes()).hexdigest())
    if job.method.tower:
        adapter = _tower_run(job, identity) / "adapter.safetensors"
        parts.append(hashlib.sha256(adapter.read_bytes()).hexdigest())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def run_all(job: Job, samples: Sequence[Path]) -> int:
    """Fit every sample (or the one run of a method without samples) and write the runs; returns how many were fitted.

    Snakemake deletes all outputs of a job that failed or was killed. So every finished run of a group is also kept as
    hard links in `results/{benchmark}/unfinished/`, taken from there when the job is started again with nothing
    changed, and forgotten when the whole job has ended.
    """
    cells: list[Sample | None] = [read_sample(path) for path in samples] if samples else [None]
    keep = job.results / job.benchmark / "unfinished"
    kept, fitted = [], 0
    for cell in cells:
        folder = identity_of(job, cell).folder(job.results)
        spare = keep / _key(job, cell)
        kept.append(spare)
        if (spare / "record.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name in records.FILES:
                (folder / name).unlink(missing_ok=True)
                os.link(spare / name, folder / name)
            print(f"{folder}: taken up from an earlier, interrupted job", flush=True)
            continue
        try:
            record, tables, tuned, adapter = run(job, cell)
        except UserError as error:
            error.add_note(f"{folder}: ")
            raise
        write(folder, record, tables, tuned, adapter)
        fitted += 1
        if len(cells) > 1:
            spare.mkdir(parents=True, exist_ok=True)
            for name in (*records.FILES[1:], records.FILES[0]):
                (spare / name).unlink(missing_ok=True)
                os.link(folder / name, spare / name)
        seconds = sum(record["cost"]["seconds"].values())
        accuracy = record["metrics"]["test"]["accuracy"]
        print(f"{folder}: test accuracy {accuracy:.2f} % in {seconds:.1f} s", flush=True)
    for spare in kept:
        shutil.rmtree(spare, ignore_errors=True)
    return fitted


def load_pack(path: Path | None) -> Pack | None:
    """The pack, if one is named."""
    return None if path is None else read_pack(path)
