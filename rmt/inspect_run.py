"""What a finished run learnt, and how to repeat it: `python -m rmt inspect`. Neither torch nor the weights are read."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.numpy import load_file

from rmt import packed, registry
from rmt.errors import UserError, shown
from rmt.runs import BadRun, Run

READS = ("--samples", "--pack", "--images", "--features", "--targets")
"""Options of `fit` that name files which must be there."""


def files_of(command: str) -> list[str]:
    """Files and folders that a `fit` command line reads."""
    found, reads = [], False
    for word in shlex.split(command):
        if word.startswith("--"):
            reads = word in READS
        elif reads:
            found.append(word)
    return found


def _accuracies(record: dict[str, Any]) -> str:
    parts = [
        f"{name} {one['accuracy']:.2f} % of {one['images']:,} images"
        for name, one in record["metrics"].items()
        if name != "val"
    ]
    return "; ".join(parts)


def _essentials(run: Run) -> Iterator[tuple[str, str]]:
    record = run.record
    identity, selection, tuning, source = (record[part] for part in ("identity", "selection", "tuning", "provenance"))
    yield "run", shown(run.folder)
    yield "benchmark", f"{identity['benchmark']}, protocol {identity['protocol']}"
    yield "accuracy", _accuracies(record)
    yield "classes", f"{len(record['task']['classes'])}, prompt {record['task']['template']!r}"
    yield "backbone", f"{record['backbone']['architecture']}, weights {source['weights_sha256'][:12]}"
    if record["method"]["below"]:
        try:
            found = run.below()
            yield "stands on", f"{shown(found.folder)}, unchanged" if found else ""
        except BadRun as error:
            yield "stands on", str(error)
    yield "steps", f"{tuning['optimisation_steps']:,}, {tuning['trainable_parameters']:,} trainable parameters"
    chosen = ", ".join(f"{name} {value}" for name, value in selection["chosen"].items()) or "nothing"
    how = f"{selection['rule']}, {selection['candidates']:,} candidates on {selection['images']} images"
    yield "chosen", chosen if selection["rule"] == "fixed" else f"{chosen} ({how})"
    settings = ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items())
    yield "settings", settings
    commit = source["commit"] or "no git checkout"
    yield "code", commit + (" with uncommitted changes" if source["dirty"] else "")
    yield (
        "made",
        f"{record['cost']['started'][:19]}, {sum(record['cost']['seconds'].values()):.1f} s, {source['device']}",
    )


def _masks(console: Console, run: Run, figure: Path | None) -> None:
    parts = packed.parts(packed.read(run.adapter))
    table = Table(title="Where the masks fell", title_justify="left")
    for name in ("layer", "matrix"):
        table.add_column(name)
    for name in ("scores", "off", "%"):
        table.add_column(name, justify="right")
    total, off = sum(part.scores for part in parts), sum(part.off for part in parts)
    for place, part in enumerate(parts):
        first = place == 0 or parts[place - 1].layer != part.layer
        last = place + 1 == len(parts) or parts[place + 1].layer != part.layer
        table.add_row(
            part.layer if first else "",
            part.matrix,
            f"{part.scores:,}",
            f"{part.off:,}",
            f"{100 * part.fraction:.3f}",
            end_section=last,
        )
    table.add_row("all", "", f"{total:,}", f"{off:,}", f"{100 * off / total:.3f}", style="bold")
    console.print(table)
    if off == 0:
        console.print("No mask is off: tuning changed nothing, and the run answers as zero-shot CLIP does.")
    if figure is not None:
        from rmt import heat_map

        fractions = {(part.layer, part.matrix): part.fraction for part in parts}
        note = f"{off:,} of {total:,} masks off, {100 * off / total:.2f} %"
        heat_map.save(heat_map.draw([(run.title, fractions)], note), figure)
        console.print(f"heat map: {shown(figure)}")


def _tensors(console: Console, run: Run) -> None:
    try:
        tensors = load_file(run.adapter)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRun(f"{shown(run.adapter)}: damaged ({error}); fit the run again") from error
    if not tensors:
        console.print("Nothing was learnt: this is CLIP as it is.")
        return
    table = Table(title="What was learnt", title_justify="left")
    table.add_column("tensor")
    for name in ("shape", "numbers", "smallest", "mean", "largest"):
        table.add_column(name, justify="right")
    for name, value in tensors.items():
        facts = [f"{one:.4g}" for one in (value.min(), value.mean(), value.max())] if value.size else [""] * 3
        table.add_row(name, " x ".join(map(str, value.shape)) or "1", f"{value.size:,}", *facts)
    console.print(table)


def _again(run: Run) -> Iterator[str]:
    source = run.record["provenance"]
    if not source["command"]:
        yield "It was not made from the command line, so no line repeats it."
        return
    yield "To make it again, at the commit above and with the same packages, paste"
    yield ""
    yield f"  {source['command']}"
    yield ""
    files = files_of(source["command"])
    missing = [name for name in files if not Path(name).expanduser().exists()]
    yield f"which reads {', '.join(files) or 'no files'}" + (
        f"; not here: {', '.join(missing)}" if missing else "; all are here" if files else ""
    )
    if run.record["method"]["below"]:
        yield f"and the finished run of {run.record['method']['below']} beside it"


def inspect(run: Run, figure: Path | None = None) -> None:
    """Print a run; for masks, `figure` names a heat map to write.

    Raises:
        BadRun, BadMasks: the adapter is missing or damaged.
        UserError: a figure is asked for, and the run has no masks.
    """
    masks = registry.METHODS[run.use].masks and "shapes" in _names(run)
    if figure is not None and not masks:
        raise UserError(f"--figure: {shown(run.folder)} has no masks to draw")
    console = Console()
    console.print(run.title, style="bold", highlight=False, markup=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")  # a path is of no use cut short
    for name, value in _essentials(run):
        grid.add_row(name, Text(value))
    console.print(grid)
    console.print()
    if masks:
        _masks(console, run, figure)
    else:
        _tensors(console, run)
    console.print()
    # Not by rich, which would wrap the line that is to be pasted.
    print("\n".join(_again(run)))


def _names(run: Run) -> set[str]:
    try:
        with safetensors.safe_open(run.adapter, "np") as file:
            return set(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRun(f"{shown(run.adapter)}: damaged ({error}); fit the run again") from error
