"""What a finished run says of images: `python -m rmt predict`."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from data_prep.own import IMAGES
from rmt.data import BadData
from rmt.errors import UserError
from rmt.images import test_pixels
from rmt.restore import Restored

IN_MEMORY = 1024
"""Images that are decoded before they are answered; they go through the tower by `Clip.encode_images`' batches."""


def expanded(paths: Sequence[Path]) -> list[Path]:
    """The given files, and all images in the given folders, in the order of their names.

    Raises:
        UserError: a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in IMAGES and not one.name.startswith("."))
        if not inside:
            raise UserError(f"{path}: no image in this folder")
        found += inside
    return found


def _decoded(restored: Restored, paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | str]]:
    """Every image through the test transform, uint8 [1, P, P, 3], or the line that says why not."""
    for path in paths:
        if not path.is_file():
            yield path, f"{path}: no such image"
            continue
        try:
            yield path, test_pixels(path.parent, [path.name], restored.clip.pixels, restored.clip.resize)
        except BadData as error:
            yield path, " ".join(str(error).split())


def predict(
    restored: Restored, paths: Sequence[Path], top: int = 5
) -> Iterator[tuple[Path, list[dict[str, Any]] | str]]:
    """For every image its `top` classes with label and probability, the likeliest first, or why it cannot be read."""
    classes = restored.task.classes
    for start in range(0, len(paths), IN_MEMORY):
        decoded = list(_decoded(restored, paths[start : start + IN_MEMORY]))
        whole = [pixels for _, pixels in decoded if not isinstance(pixels, str)]
        answers: list[list[dict[str, Any]]] = []
        if whole:
            chance = functional.softmax(restored.logits(np.concatenate(whole)).double(), dim=1)
            # Not topk, whose order among equals is open; the first of equals wins, as in predictions.parquet.
            values, labels = torch.sort(chance, dim=1, descending=True, stable=True)
            answers = [
                [
                    {"class": classes[label], "label": label, "probability": value}
                    for value, label in zip(row_values[:top], row_labels[:top], strict=True)
                ]
                for row_values, row_labels in zip(values.tolist(), labels.tolist(), strict=True)
            ]
        answered = iter(answers)
        for path, pixels in decoded:
            yield path, pixels if isinstance(pixels, str) else next(answered)


def run(restored: Restored, images: Sequence[Path], top: int, as_json: bool) -> int:
    """Print the answers, as a table or as one line of JSON per image; returns 2 if an image could not be read."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if top < 1:
        raise UserError(f"--top {top}: expected 1 or more")
    table = Table(title=restored.run.title, title_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    broken = 0
    for path, answer in predict(restored, expanded(images), top):
        if isinstance(answer, str):
            broken += 1
            print(f"error: {answer}", file=sys.stderr)
        elif as_json:
            print(json.dumps({"image": str(path), "top": answer}, ensure_ascii=False), flush=True)
        else:
            for rank, one in enumerate(answer):
                name = Text(one["class"], style="bold" if rank == 0 else "")
                table.add_row(
                    Text(str(path) if rank == 0 else ""),
                    name,
                    f"{100 * one['probability']:.1f} %",
                    end_section=rank == len(answer) - 1,
                )
    if table.rows:
        Console().print(table)
    return 2 if broken else 0
