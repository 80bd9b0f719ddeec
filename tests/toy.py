"""A toy dataset from scikit-learn's digits, written as `data_prep` writes: images, sample files, a pack, features."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from data_prep import splits
from data_prep.pack import pack as write_pack
from rmt import registry
from rmt.__main__ import main
from rmt.data import Sample
from rmt.features import Features
from rmt.job import Job
from rmt.methods import Task
from rmt.plan import PlannedMethod
from rmt.records import write_json
from rmt.resume import Learner, Progress, Row

CLASSES = ("zero", "one", "two", "three")
TEMPLATE = "a photo of the digit {}."

QUICK = {"epochs": 3, "iterations": 6, "search_steps": [20, 5], "initial_context": "prompt", "alpha_interval": 2}


def short(use: str) -> dict[str, Any]:
    """Settings that make a method quick on the toy, and masks flip; a method of any name gets its own."""
    method = registry.METHODS[use]
    if method.masks:
        return {} if use == "r_amt_released" else {"learning_rate": 1e-3, "epochs": 12}
    return {name: value for name, value in QUICK.items() if name in method.defaults}


def make(
    folder: Path,
    shots: tuple[int, ...] = (1, 2),
    seeds: tuple[int, ...] = (1, 2),
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """The first digit classes, four if not told: 8 train, 4 val, 10 test images each."""
    digits = load_digits()
    split: dict[str, list[splits.Item]] = {part: [] for part in splits.PARTS}
    for label, name in enumerate(classes):
        for number, index in enumerate(np.flatnonzero(digits.target == label)[:22]):
            part = "train" if number < 8 else "val" if number < 12 else "test"
            path = f"{name}/{number:02d}.png"
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((digits.images[index] * 15.9).astype(np.uint8))
            grey.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(folder / "images" / path)
            split[part].append((path, label, name))
    write_json(folder / "split.json", split)
    for one in shots:
        for seed in seeds:
            write_json(
                sample_file(folder, one, seed),
                {
                    "dataset": "digits",
                    "shots": one,
                    "seed": seed,
                    "classes": classes,
                    "template": TEMPLATE,
                    "mirror": False,
                    "split_sha256": splits.sha256_of(folder / "split.json"),
                    **splits.few_shot(split, one, seed),
                },
            )
    write_pack("digits", folder / "split.json", folder / "images", 32, folder / "test.npy")
    return folder


def sample_file(folder: Path, shots: int, seed: int) -> Path:
    return folder / "samples" / f"{shots}shot-seed{seed}.json"


def samples(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / "samples").iterdir())]


def encode(folder: Path) -> int:
    arguments = ["encode", "--backbone", "tiny_clip", "--pack", f"{folder}/test.npy", "--images", f"{folder}/images"]
    return main(
        [*arguments, "--samples", *samples(folder), "--views", "3", "--output", f"{folder}/features.safetensors"]
    )


def fit(
    folder: Path, method: str, results: str = "results", chosen: list[str] | None = None, **overrides: object
) -> int:
    """`python -m rmt fit` of a method on the toy's samples; returns the exit status."""
    arguments = ["fit", "--benchmark", "toy", "--backbone", "tiny_clip", "--method", method, "--device", "cpu"]
    arguments += ["--overrides", json.dumps(overrides), "--results", str(folder / results), "--views", "3"]
    arguments += ["--pack", f"{folder}/test.npy", "--images", f"{folder}/images"]
    arguments += ["--features", f"{folder}/features.safetensors"]
    chosen = samples(folder) if chosen is None else chosen
    return main([*arguments, "--samples", *chosen] if method != "zero_shot" else arguments)


def job(folder: Path, method: str, results: str = "again", **overrides: object) -> Job:
    """A job in this process, for what the command line does not show."""
    base, _, below = method.partition("+")
    return Job(
        benchmark="toy",
        protocol="few_shot",
        backbone="tiny_clip",
        method=PlannedMethod(method, base, below or None, overrides),
        results=folder / results,
        device=torch.device("cpu"),
        pack=folder / "test.npy",
        images=folder / "images",
        features_file=folder / "features.safetensors",
        views=3,
    )


def run_folder(folder: Path, method: str, shots: int, seed: int, results: str = "results") -> Path:
    return folder / results / "toy/runs/few_shot/tiny_clip/digits" / method / f"{shots}shot" / f"seed{seed}"


class StoppedAt(Progress):
    """The process is told to stop at a step."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder, 1e9)
        self.at = at

    def after_step(self, stage: str, learner: Learner, curve: list[Row]) -> None:
        if len(curve) == self.at:
            self.stop.signal = signal.SIGTERM
        super().after_step(stage, learner, curve)


def task(
    use: str, classes: int = 4, shots: int = 4, width: int = 16, spread: float = 1.0, dataset: str = "toy", **overrides
) -> Task:
    """A task in memory: random features [N, `width`] around random class text features, for what needs no images.

    `spread` is the features' deviation from their class's text, whose entries have deviation 1.
    """
    random = torch.Generator().manual_seed(0)
    text = torch.randn(classes, width, generator=random)
    labels = torch.arange(classes).repeat_interleave(shots)

    def around(views: int) -> torch.Tensor:
        noise = torch.randn(len(labels), views, width, generator=random)
        return 0.3 * text[labels, None] + spread * noise

    train = tuple((f"train-{row}", label) for row, label in enumerate(labels.tolist()))
    val = tuple((f"val-{row}", label) for row, label in enumerate(labels.tolist()))
    names = tuple(f"class {label}" for label in range(classes))
    rows = {path: row for row, (path, _) in enumerate([*train, *val])}
    found = Features(
        raw_text=text,
        test=around(1)[:, 0],
        test_labels=labels,
        images=torch.cat([around(1)[:, 0], around(1)[:, 0]]),
        views=around(3),
        rows=rows,
        view_rows={path: row for row, (path, _) in enumerate(train)},
        metadata={},
    )
    settings = PlannedMethod(use, use, None, overrides).hyperparameters(dataset, shots)
    sample = Sample(dataset, shots, 1, names, TEMPLATE, False, "", "", train, val)
    return Task(sample, names, TEMPLATE, settings, 100.0, lambda: found, lambda: text)
