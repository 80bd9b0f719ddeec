"""A picture of where masks fell: layers downwards, matrices across. Apart, because matplotlib is imported only here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display on a cluster's login node

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rmt import packed
from rmt.records import atomic

Fractions = Mapping[tuple[str, str], float]
"""Masked fraction by (layer, matrix)."""


def _grid(fractions: Fractions) -> tuple[list[str], list[str], np.ndarray]:
    layers = list(dict.fromkeys(layer for layer, _ in fractions))
    matrices = packed.matrix_order({matrix for _, matrix in fractions})
    grid = np.full((len(layers), len(matrices)), np.nan)
    for (layer, matrix), fraction in fractions.items():
        grid[layers.index(layer), matrices.index(matrix)] = 100 * fraction
    return layers, matrices, grid


def _percent(value: float) -> str:
    return "0" if value == 0 else f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def draw(panels: Sequence[tuple[str, Fractions]], note: str = "") -> Figure:
    """Percent of masks that are off, one panel per title, all on one scale; grey: no such matrix.

    Args:
        panels: title and fractions of every panel.
        note: a line below the panels.
    """
    grids = [(title, *_grid(fractions)) for title, fractions in panels]
    columns = min(3, len(grids))
    rows = -(-len(grids) // columns)
    width = max(0.62 * len(matrices) + 1.2 for _, _, matrices, _ in grids)
    height = max(0.27 * len(layers) + 1.1 for _, layers, _, _ in grids)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(max(5.0, width * columns + 0.9), height * rows + 0.3), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    highest = max([float(np.nanmax(grid)) for _, _, _, grid in grids], default=0.0) or 1.0
    # Cividis reads the same for every kind of colour vision, and in grey.
    colours: Any = matplotlib.colormaps["cividis"].with_extremes(bad="0.9")
    image: Any = None
    for axes, (title, layers, matrices, grid) in zip(all_axes.flat, grids, strict=False):
        image = axes.imshow(grid, cmap=colours, vmin=0, vmax=highest, aspect="auto")
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(matrices)), matrices, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(layers)), layers, fontsize=8)
        axes.tick_params(length=0)
        for row, column in np.argwhere(~np.isnan(grid)):
            value = grid[row, column]
            colour = "black" if value > 0.6 * highest else "white"
            axes.text(column, row, _percent(value), ha="center", va="center", fontsize=6.5, color=colour)
    for rest in list(all_axes.flat)[len(grids) :]:
        rest.axis("off")
    figure.colorbar(image, ax=all_axes, label="masked off, %", shrink=0.8)
    if note:
        figure.supxlabel(note, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; the same numbers give the same bytes."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
