"""Few-shot curves and gains over zero-shot, as PNG. One colour and one marker per method, everywhere."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # no display on a cluster's login node

import matplotlib.pyplot as plt
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.cells import Scores, dataset_name, figure_name, level_name, settings, shot_levels, zero_shot_label
from reports.rows import Row
from rmt.plan import Plan
from rmt.records import atomic

# Seaborn's "colorblind" palette without its grey (zero-shot's), its yellow and its light pink (too faint on white).
_COLOURS = [seaborn.color_palette("colorblind")[index] for index in (0, 1, 2, 3, 9, 4, 5)]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
_CONTROL = "0.1"
_ZERO_SHOT = "0.5"
_DOTS_PER_INCH = 150


class Style(NamedTuple):
    """How a method is drawn."""

    colour: Any
    marker: str
    face: Any
    width: float
    dashes: str


def styles(plan: Plan) -> dict[str, Style]:
    """Style by method: by its place in the config, so that a missing run changes nobody's colour.

    The control is black and thick. A stack has the colour and the marker of the method that it stacks, hollow and
    dotted, where that method is planned too.
    """
    found: dict[str, Style] = {}
    place = 0
    stacks_last = sorted(plan.methods, key=lambda label: plan.methods[label].below is not None)
    for label in stacks_last:
        method = plan.methods[label]
        base = found.get(label.partition("+")[0]) if method.below else None
        if not method.entry.few_shot:
            found[label] = Style(_ZERO_SHOT, "", _ZERO_SHOT, 1.5, "--")
        elif base is not None and base.marker:
            found[label] = base._replace(face="white", width=1.3, dashes=":")
        else:
            # Seven colours and nine markers share no divisor: 63 methods before a pair repeats.
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
            found[label] = Style(colour, marker, colour, 1.5, "-" if place < len(_COLOURS) else "-.")
            place += label != plan.control
        if label == plan.control:
            found[label] = found[label]._replace(colour=_CONTROL, marker="*", face=_CONTROL, width=2.2)
    return {label: found[label] for label in plan.methods}


def shown_name(plan: Plan, label: str) -> str:
    """Display name of a method for legends."""
    return f"{plan.display(label)} (control)" if label == plan.control else plan.display(label)


def _size(style: Style) -> float:
    return 9.0 if style.marker == "*" else 5.0


def _line(style: Style) -> dict[str, Any]:
    """How matplotlib draws a method's line and markers, in a panel and in the legend."""
    return {
        "color": style.colour,
        "marker": style.marker,
        "markersize": _size(style),
        "markerfacecolor": style.face,
        "markeredgewidth": 1.0,
        "linewidth": style.width,
        "linestyle": style.dashes,
    }


def _curve(axes: Axes, shots: Sequence[float], means: Sequence[float], spreads: Sequence[float], style: Style) -> None:
    axes.errorbar(
        shots,
        means,
        yerr=spreads,
        **_line(style),
        elinewidth=1.0,
        capsize=2,
        zorder=2 + style.width,  # the control on top
    )


def _curve_panel(axes: Axes, scores: Scores, dataset: str | None, look: dict[str, Style]) -> None:
    """One panel: a dataset, or the mean over datasets for None. Incomplete cells leave a gap."""
    plan = scores.plan
    shots_list = shot_levels(plan)
    drawn = [label for label in scores.methods if plan.methods[label].entry.few_shot]
    for place, label in enumerate(drawn):
        means, spreads = [], []
        for shots in shots_list:
            if dataset is None:
                mean = scores.mean(label, shots)
                means.append(math.nan if mean is None else mean)
                spreads.append(0.0)
            else:
                cell = scores.cell(label, dataset, shots)
                means.append(cell.mean if cell.complete else math.nan)
                spreads.append(cell.spread if cell.complete else 0.0)
        # A slight shift keeps the error bars of neighbours apart.
        shift = 2 ** (0.025 * (place - (len(drawn) - 1) / 2))
        xs = [shots * shift for shots in shots_list]
        _curve(axes, xs, means, spreads if dataset else [math.nan] * len(xs), look[label])
    for label in scores.methods:
        if not plan.methods[label].entry.few_shot:
            flat = scores.mean(label, shots_list[0]) if dataset is None else scores.score(label, dataset, shots_list[0])
            if flat is not None:
                axes.axhline(flat, color=look[label].colour, linestyle="--", linewidth=look[label].width, zorder=1)
    axes.set_title("mean over datasets" if dataset is None else dataset_name(dataset), fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots_list, [str(shots) for shots in shots_list])
    axes.minorticks_off()
    # Two levels fill the panel's width too: a third of a doubling on each side, or more where the levels lie apart.
    margin = 2 ** max(0.35, 0.08 * math.log2(max(shots_list) / min(shots_list)))
    axes.set_xlim(min(shots_list) / margin, max(shots_list) * margin)


def _legend(axes: Axes, plan: Plan, look: dict[str, Style]) -> None:
    """The legend takes a panel of its own."""
    axes.axis("off")
    handles = [
        plt.Line2D(
            [],
            [],
            label=shown_name(plan, label),
            **_line(style),
        )
        for label, style in look.items()
    ]
    columns = 1 if len(handles) <= 12 else 2
    axes.legend(handles=handles, loc="center", frameon=False, fontsize=9, ncols=columns, handlelength=2.6)


def curves(scores: Scores) -> Figure:
    """Accuracy against shots: the mean over datasets, then each dataset with the spread over seeds."""
    plan = scores.plan
    look = styles(plan)
    panels: list[str | None] = [None, *scores.datasets]
    columns = min(4, len(panels) + 1)
    rows = math.ceil((len(panels) + 1) / columns)
    with seaborn.axes_style("whitegrid", {"grid.color": ".92"}):
        figure, grid = plt.subplots(
            rows, columns, figsize=(2.75 * columns, 2.5 * rows), squeeze=False, layout="constrained"
        )
    axes = list(grid.flat)
    for place, dataset in enumerate(panels):
        _curve_panel(axes[place], scores, dataset, look)
    for place in range(len(panels)):
        if place % columns == 0:
            axes[place].set_ylabel("test accuracy, %")
        # The lowest panel of its column.
        if place + columns >= len(panels):
            axes[place].set_xlabel("shots (images per class)")
    _legend(axes[len(panels)], plan, look)
    for rest in axes[len(panels) + 1 :]:
        rest.axis("off")
    seaborn.despine(figure)
    return figure


def gains(scores: Scores, baseline: str) -> Figure:
    """Points over zero-shot by dataset, one panel per number of shots; the mean in a row of its own."""
    plan = scores.plan
    look = styles(plan)
    shots_list = shot_levels(plan)
    drawn = [label for label in scores.methods if label != baseline]
    places = [*scores.datasets, None]
    columns = min(3, len(shots_list))
    rows = math.ceil(len(shots_list) / columns)
    height = (0.8 + 0.42 * len(places)) * rows + 0.22 * math.ceil(len(drawn) / 4) + 0.4
    with seaborn.axes_style("whitegrid", {"grid.color": ".92"}):
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(max(8.0, 4.6 * columns), height),
            squeeze=False,
            sharey=True,
            sharex=True,
            layout="constrained",
        )
    all_axes = list(grid.flat)
    for axes, shots in zip(all_axes, shots_list, strict=False):
        for place, label in enumerate(drawn):
            xs, ys = [], []
            for row, dataset in enumerate(places):
                gain = _gain(scores, label, baseline, dataset, shots)
                if gain is not None:
                    xs.append(gain)
                    ys.append(row + 0.09 * (place - (len(drawn) - 1) / 2) * min(1.0, 7 / len(drawn)))
            style = look[label]
            axes.plot(
                xs,
                ys,
                linestyle="",
                color=style.colour,
                marker=style.marker or "|",
                markersize=_size(style) + 0.5,
                markerfacecolor=style.face,
                label=shown_name(plan, label),
                zorder=2 + style.width,
            )
        for row in range(0, len(places), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)
        axes.axvline(0, color=_ZERO_SHOT, linestyle="--", linewidth=1.5, zorder=1)
        axes.axhline(len(places) - 1.5, color="0.6", linewidth=0.8)
        axes.set_title(level_name(shots), fontsize=10)
        axes.set_yticks(range(len(places)), ["mean" if name is None else dataset_name(name) for name in places])
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(labelbottom=True)  # on every row, since the last row may be shorter
        axes.set_xlabel("points over zero-shot")
    for rest in all_axes[len(shots_list) :]:
        rest.axis("off")
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(drawn)), frameon=False, fontsize=9)
    seaborn.despine(figure, left=True)
    return figure


def _gain(scores: Scores, label: str, baseline: str, dataset: str | None, shots: int) -> float | None:
    if dataset is not None:
        score, zero = scores.score(label, dataset, shots), scores.score(baseline, dataset, shots)
    else:
        score, zero = scores.mean(label, shots), scores.mean(baseline, shots)
    return None if score is None or zero is None else score - zero


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with atomic(path) as temporary:
        # Without the metadata the same numbers give the same bytes under every version string.
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    plt.close(figure)


def draw(plan: Plan, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw all figures of a benchmark.

    Returns:
        The files: under few_shot `curves.png` and, if zero-shot is planned, `gains.png`, per backbone if there are
        several; then those of the other protocols, see `reports.protocol_figures`.
    """
    from reports import protocol_figures  # here, because it draws with this module's styles

    folder.mkdir(parents=True, exist_ok=True)
    all_settings = settings(plan, "few_shot")
    baseline = zero_shot_label(plan)
    written = []
    for setting in all_settings:
        scores = Scores(plan, rows, setting)
        drawn = {"curves": curves(scores)}
        if baseline is not None and len(plan.methods) > 1:
            drawn["gains"] = gains(scores, baseline)
        for kind, figure in drawn.items():
            written.append(folder / figure_name(kind, setting, all_settings))
            save(figure, written[-1])
    return written + protocol_figures.draw(plan, rows, folder)
