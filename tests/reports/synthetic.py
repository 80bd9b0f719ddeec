"""A results tree that no run has made: valid records and predictions of which every correct image is known."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from rmt import records
from rmt.plan import Plan, check
from rmt.records import Identity

DATASETS = ["digits", "letters", "displays", "outlines", "textures", "colors"]
IMAGES = 40
CLASSES = 4

# Of 40 images right at 2 and 16 shots; seeds and datasets move it by whole images, see `right`.
LEVEL = {
    "zero_shot": (16, 16),
    "linear_probe": (20, 30),
    "tip_adapter": (21, 26),
    "r_amt": (22, 28),
    "amt": (22, 27),
    "coop": (12, 14),
}

RULES = {"linear_probe": "val", "tip_adapter": "val"}


# The same at every number of shots, where the images are of classes or datasets that were not trained on.
ELSEWHERE = {"zero_shot": 16, "clip_adapter": 17, "r_amt": 15, "amt": 10, "coop": 12, "tip_adapter": 18}
LEVEL["clip_adapter"] = (18, 24)


def digest(*names: object) -> str:
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()


def right(run: Identity) -> np.ndarray:
    """(images,) whether the run is right: the first images, as many as level, dataset and seed say.

    Prefixes of one order make every paired difference countable by hand.
    """
    low, high = LEVEL[run.method.split("+")[0]]
    level = low if run.shots <= 2 else high
    return np.arange(IMAGES) < level + shift(run.dataset) + WOBBLE[run.seed]


WOBBLE = {0: 0, 1: -1, 2: 0, 3: 1}
"""Images more by seed; 0 is the run without one."""


def shift(dataset: str) -> int:
    """Images more by dataset."""
    return DATASETS.index(dataset) - 2 if dataset in DATASETS else 0


def right_on(run: Identity, eval_set: str) -> np.ndarray:
    """(images,) whether the run is right on one of its evaluation sets; `new` has 10 images less."""
    if eval_set in ("test", "base"):
        return right(run)
    level = ELSEWHERE[run.method.split("+")[0]] + WOBBLE[run.seed]
    if eval_set == "new":
        return np.arange(IMAGES - 10) < level - shift(run.dataset)
    return np.arange(IMAGES) < level + shift(eval_set)


def scores(correct: np.ndarray) -> dict[str, Any]:
    """Metrics of an evaluation set."""
    accuracy = 100 * float(correct.mean())
    return {
        "images": len(correct),
        "correct": int(correct.sum()),
        "accuracy": accuracy,
        "class_accuracy": accuracy,
        "cross_entropy": 1.5,
        "calibration_error": 4.0,
    }


def record(plan: Plan, run: Identity, correct: Mapping[str, np.ndarray], **changes: Any) -> dict[str, Any]:
    """A valid record; `correct` by evaluation set; `changes` replace fields by dotted path with `__` for the dot."""
    method = plan.methods[run.method]
    masks = method.entry.masks
    few_shot = method.entry.few_shot
    values: dict[str, Any] = {
        "schema": 2,
        "identity": run.as_dict(),
        "method": {
            "use": method.use,
            "below": method.below,
            "label": plan.display(run.method),
            "citation": method.entry.citation,
        },
        "task": {"classes": ["one", "two"], "template": "a photo of a {}."},
        "backbone": {
            "architecture": "tiny_clip",
            "pretrained": "rmt/weights/tiny_clip.safetensors",
            "checkpoint": None,
            "pixels": 32,
            "resize": "shortest",
        },
        "hyperparameters": method.hyperparameters(run.dataset, run.shots),
        "selection": {
            "rule": "test_oracle" if method.entry.oracle else RULES.get(run.method, "fixed"),
            "checkpoint": "last" if masks or method.use == "coop" else "best" if method.entry.oracle else "none",
            "chosen": {"C": [0.01, 1.0, 100.0][run.seed % 3]} if run.method == "linear_probe" else {},
            "candidates": 7 if run.method == "linear_probe" else 1,
            "images": 8 if few_shot else 0,
        },
        # A validation accuracy that would be seen at once if it ever entered a table.
        "metrics": {name: scores(part) for name, part in correct.items()}
        | {"val": scores(np.ones(8, dtype=bool)) | {"accuracy": 99.9}},
        "tuning": {
            "optimisation_steps": 120 if masks else 0,
            "trainable_parameters": 196608 if masks else 1290,
            "adapter_bytes": 24600 if masks else 5160,
            "masks_total": 1000 if masks else None,
            "masks_flipped": 24 if masks else None,
            "masked_fraction": 0.024 if masks else None,
        },
        "cost": {
            "seconds": {"prepare": 0.5, "tune": 0.25 * run.shots + 0.1 * run.seed, "evaluate": 0.2},
            "images_per_second": 300.0 if few_shot else None,
            "peak_memory_bytes": 400_000_000,
            "started": f"2026-11-20T10:{run.shots:02d}:0{run.seed}+00:00",
            "ended": f"2026-11-20T11:{run.shots:02d}:0{run.seed}+00:00",
        },
        "provenance": {
            "command": "",
            "below_sha256": digest(method.below) if method.below else None,
            "sample_sha256": digest(run.dataset, run.shots, run.seed) if few_shot else None,
            "split_sha256": digest("split", run.dataset),
            "weights_sha256": digest("weights", run.backbone),
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "python": "3.11.7",
            "packages": {"numpy": "2.4.6", "torch": "2.13.0"},
            "device": "cpu: a test",
            "threads": 1,
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for name in parents:
            place = place[name]
        place[last] = value
    records.check(values)
    return values


def write_run(
    plan: Plan,
    run: Identity,
    correct: np.ndarray | Mapping[str, np.ndarray] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run: record.json and predictions.parquet with its evaluation sets and a validation part, in shuffled
    order. `correct` is of its first evaluation set, or by evaluation set."""
    sets = plan.evaluation_sets(run.protocol, run.dataset)
    known = correct if isinstance(correct, Mapping) else {} if correct is None else {sets[0]: correct}
    parts = {name: known[name] if name in known else right_on(run, name) for name in sets}
    folder = run.folder(Path(plan.config["results_folder"]))
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for name, part in parts.items():
        labels = np.arange(len(part)) % CLASSES
        place = run.dataset if name in ("test", "base", "new") else name
        values = {
            "eval_set": name,
            "path": [f"{place}/{index:04d}.png" for index in range(len(part))],
            "label": labels,
            "predicted": np.where(part, labels, (labels + 1) % CLASSES),
            "probability": 0.5,
            "confidence": 0.5,
            "margin": np.where(part, 1.0, -1.0),
        }
        order = np.random.default_rng(run.seed).permutation(len(part))
        frames.append(pandas.DataFrame(values).iloc[order])
    val = frames[0].iloc[:8].assign(eval_set="val")
    pandas.concat([val.assign(predicted=val["label"]), *frames]).to_parquet(folder / "predictions.parquet", index=False)
    (folder / "record.json").write_text(json.dumps(record(plan, run, parts, **(changes or {}))))
    return folder


def make_plan(folder: Path, **changes: Any) -> Plan:
    config: dict[str, Any] = {
        "benchmark": "synthetic",
        "datasets": DATASETS,
        "shots": [2, 16],
        "seeds": [1, 2, 3],
        "methods": {label: {} for label in ("zero_shot", "linear_probe", "tip_adapter", "amt", "r_amt")},
        "resamples": 2000,
        "results_folder": str(folder / "results"),
        "reports_folder": str(folder / "reports"),
    }
    return check(config | changes)


def write_results(plan: Plan, leave_out: Callable[[Identity], bool] = lambda run: False) -> None:
    for run in plan.identities():
        if not leave_out(run):
            write_run(plan, run)


def plan_json(plan: Plan) -> str:
    return json.dumps(dict(plan.config))


GENERAL = {
    "protocols": ["few_shot", "base_to_new", "domain_shift", "cross_dataset"],
    "datasets": ["digits", "outlines", "displays", "imagenet"],
    "sources": ["digits", "outlines"],
    "methods": {
        label: {}
        for label in ("zero_shot", "tip_adapter", "clip_adapter", "coop", "amt", "r_amt", "coop+r_amt", "r_amt+coop")
    },
}
"""Every protocol, a method that is bound to its classes, and stacks in both orders."""
