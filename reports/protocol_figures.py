"""Figures of the protocols other than few_shot: what is gained in one place against another, and heat maps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from reports import base_to_new, cross_dataset, domain_shift, figures, text
from reports.base_to_new import HarmonicMeans
from reports.cells import dataset_name, heat_map_name, level_name, shot_levels, trade_off_name, zero_shot_label
from reports.cross_dataset import Transfer
from reports.domain_shift import Shifted
from reports.rows import Row
from rmt.plan import Plan

# ColorBrewer's red to blue is told apart by all common kinds of colour vision; without its ends, on which no number can
# be read.
_DIVERGING = ListedColormap(plt.get_cmap("RdBu")(np.linspace(0.12, 0.88, 256)))

Points = Mapping[str, tuple[float, float]]
"""Percent on the horizontal and on the vertical axis by method; methods with missing runs are left out."""


def _points(scores: HarmonicMeans | Shifted | Transfer, shots: int) -> Points:
    """What was trained on against what was not."""
    found = {}
    for method in scores.methods:
        if isinstance(scores, HarmonicMeans):
            pair = scores.base.mean(method, shots), scores.new.mean(method, shots)
        else:
            pair = scores.source.mean(method, shots), scores.mean(method, shots)
        if pair[0] is not None and pair[1] is not None:
            found[method] = pair[0], pair[1]
    return found


def trade_off(plan: Plan, panels: Mapping[int, Points], across: str, upwards: str) -> Figure:
    """One panel per number of shots: a point per method; lines through zero-shot divide gains from losses.

    Args:
        plan: the checked config, for colours and names.
        panels: points by number of shots.
        across: what the horizontal axis is, in percent.
        upwards: what the vertical axis is.
    """
    look, baseline = figures.styles(plan), zero_shot_label(plan)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    drawn = [label for label in plan.methods if any(label in points for points in panels.values())]
    in_a_row = columns + 1  # names of stacks are long
    height = 3.2 * rows + 0.22 * math.ceil(len(drawn) / in_a_row) + 0.3
    with seaborn.axes_style("whitegrid", {"grid.color": ".92"}):
        figure, grid = plt.subplots(
            rows, columns, figsize=(max(5.6, 3.6 * columns), height), squeeze=False, sharex=True, sharey=True,
            layout="constrained",
        )  # fmt: skip
    all_axes = list(grid.flat)
    handles = {}
    for axes, (shots, points) in zip(all_axes, panels.items(), strict=False):
        if baseline is not None and baseline in points:
            for draw, value in zip((axes.axvline, axes.axhline), points[baseline], strict=True):
                draw(value, color=look[baseline].colour, linestyle="--", linewidth=1.2, zorder=1)
        for label, (x, y) in points.items():
            style = look[label]
            (handles[label],) = axes.plot(
                [x],
                [y],
                linestyle="",
                color=style.colour,
                marker=style.marker or "o",
                markersize=10 if style.marker == "*" else 6.5,
                # A stack often lies where its method does: hollow and on top, both are seen.
                markerfacecolor="none" if style.face == "white" else style.face,
                markeredgewidth=1.3,
                zorder=6 if style.face == "white" else 2 + style.width,
            )
        axes.set_title(level_name(shots), fontsize=10)
        axes.margins(0.12)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(across)
    for row in grid:
        row[0].set_ylabel(upwards)
    for rest in all_axes[len(panels) :]:
        rest.axis("off")
    if handles:
        figure.legend(
            [handles[label] for label in drawn],
            [figures.shown_name(plan, label) for label in drawn],
            loc="outside lower center",
            ncols=in_a_row,
            frameon=False,
            fontsize=9,
        )
    seaborn.despine(figure)
    return figure


def _gains(scores: Transfer, method: str, shots: int, targets: Sequence[str]) -> np.ndarray:
    """(sources, targets) points over zero-shot, NaN where missing."""
    found = [[scores.gain(method, source, target, shots) for target in targets] for source in scores.sources]
    return np.array([[math.nan if gain is None else gain for gain in row] for row in found])


def _shade(axes: Axes, values: np.ndarray, own: np.ndarray, norm: Normalize, size: float) -> None:
    """Cells with their numbers; those of a dataset's own test images are grey, missing ones white."""
    coloured = np.ma.masked_where(own | np.isnan(values), values)
    axes.set_facecolor("white")
    axes.imshow(np.where(own, 1.0, np.nan), cmap="Greys", vmin=0, vmax=6, aspect="auto")
    axes.imshow(coloured, cmap=_DIVERGING, norm=norm, aspect="auto")
    for place in range(1, values.shape[0]):
        axes.axhline(place - 0.5, color="white", linewidth=1.2)
    for place in range(1, values.shape[1]):
        axes.axvline(place - 0.5, color="white", linewidth=1.2)
    for (row, column), value in np.ndenumerate(values):
        strong = not own[row, column] and abs(value) > 0.7 * float(norm.vmax or 1)
        shown = "?" if math.isnan(value) else text.points(value)
        axes.text(column, row, shown, ha="center", va="center", fontsize=size, color="white" if strong else "0.1")


def heat_map(scores: Transfer, shots: int) -> Figure:
    """Points over zero-shot after training on one dataset, on every other: a panel per method, or a row if there is
    one source only. Blue is above zero-shot and red below, on one scale centred at zero for all panels.
    """
    plan = scores.plan
    targets = scores.columns
    one_source = len(scores.sources) == 1
    methods = (
        [m for m in scores.methods if m != zero_shot_label(plan)] if one_source else cross_dataset.shown_methods(scores)
    )
    values = {method: _gains(scores, method, shots, targets) for method in methods}
    own = np.array([[source == target for target in targets] for source in scores.sources])
    if one_source:
        values = {"": np.concatenate(list(values.values()))}
        own = np.repeat(own, len(methods), axis=0)
        names = [figures.shown_name(plan, method) for method in methods]
    else:
        names = [dataset_name(source) for source in scores.sources]
    shown = [np.abs(panel[~own & ~np.isnan(panel)]) for panel in values.values()]
    largest = max([1.0, *(float(panel.max()) for panel in shown if panel.size)])
    norm = Normalize(-largest, largest)
    columns = min(2 if len(targets) > 6 else 3, len(values))
    rows = math.ceil(len(values) / columns)
    size = (0.62 * len(targets) * columns + 2.6, (0.42 * len(names) + 1.6) * rows + 0.2)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    all_axes = list(grid.flat)
    for axes, (method, panel) in zip(all_axes, values.items(), strict=False):
        _shade(axes, panel, own, norm, 8.0)
        axes.set_title(figures.shown_name(plan, method) if method else level_name(shots), fontsize=10)
        axes.set_xticks(
            range(len(targets)), [dataset_name(name) for name in targets], rotation=40, ha="right", fontsize=8
        )
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(length=0, labelbottom=True)
        for side in axes.spines.values():
            side.set_visible(False)
        if not one_source and axes in grid[:, 0]:
            axes.set_ylabel("trained on", fontsize=9)
    for rest in all_axes[len(values) :]:
        rest.axis("off")
    scale = plt.cm.ScalarMappable(norm=norm, cmap=_DIVERGING)
    figure.colorbar(scale, ax=all_axes, label="points over zero-shot", shrink=0.9, aspect=25 * rows, pad=0.02)
    return figure


def draw(plan: Plan, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw the figures of all planned protocols other than few_shot; returns the files."""
    axes: dict[str, tuple[type[HarmonicMeans | Shifted | Transfer], str, str]] = {
        base_to_new.PROTOCOL: (HarmonicMeans, "base classes, %", "new classes, %"),
        domain_shift.PROTOCOL: (Shifted, "source, %", "mean of the shifted sets, %"),
        cross_dataset.PROTOCOL: (Transfer, "source, %", "mean of the other datasets, %"),
    }
    written = []

    def save(figure: Figure, name: str) -> None:
        written.append(folder / name)
        figures.save(figure, written[-1])

    for protocol in plan.config["protocols"]:
        for backbone in plan.config["backbones"] if protocol in axes else []:
            kind, across, upwards = axes[protocol]
            scores = kind(plan, rows, backbone)
            panels = {shots: _points(scores, shots) for shots in shot_levels(plan)}
            save(trade_off(plan, panels, across, upwards), trade_off_name(protocol, backbone))
            if isinstance(scores, Transfer) and zero_shot_label(plan) is not None:
                for shots in shot_levels(plan):
                    save(heat_map(scores, shots), heat_map_name(backbone, shots))
    return written
