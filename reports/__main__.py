"""`python -m reports VERB`: collect, compare, masks, figures, render (lines of the workflow); settings, progress."""

import argparse
import json
import sys
import time
from pathlib import Path

from rmt import plan as plans
from rmt.errors import UserError, run_verb
from rmt.plan import ConfigError, Plan


def _plan(arguments: argparse.Namespace) -> Plan:
    """The checked config of `--config` or `--plan`."""
    if arguments.config is not None:
        return plans.load(arguments.config)
    try:
        config = json.loads(arguments.plan)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--plan: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError("--plan: expected a JSON object, the config's keys and values")
    return plans.check(config)


# Imports wait until the verb needs them: collecting should not cost what drawing does.


def _collect(arguments: argparse.Namespace) -> None:
    from reports import collect

    collect.write(arguments.output, collect.collect(_plan(arguments), arguments.partial))


def _compare(arguments: argparse.Namespace) -> None:
    from reports import collect, compare, comparisons

    plan = _plan(arguments)
    found = compare.compare(plan, collect.read(arguments.records, plan))
    comparisons.write(arguments.output, found)
    print(compare.summary_line(found))


def _masks(arguments: argparse.Namespace) -> None:
    from reports import masks

    found, overlaps = masks.measure(_plan(arguments), arguments.partial)
    masks.write(arguments.output, found, overlaps)


def _figures(arguments: argparse.Namespace) -> None:
    from reports import collect, figures

    plan = _plan(arguments)
    figures.draw(plan, collect.read(arguments.records, plan), arguments.output)
    if arguments.masks:
        from reports import masks, masks_page

        masks_page.draw(plan, masks.read(arguments.masks, plan)[0], arguments.output)


def _render(arguments: argparse.Namespace) -> None:
    from reports import collect, comparisons, masks, render

    plan = _plan(arguments)
    if arguments.partial:
        _render_partial(plan, arguments.output)
        return
    inputs = {name: getattr(arguments, name) for name in ("records", "comparisons", "figures")}
    for name, path in inputs.items():
        if path is None:
            raise UserError(f"--{name} is missing; or render what there is with --partial")
    rows = collect.read(inputs["records"], plan)
    tests = comparisons.read(inputs["comparisons"])
    masked = masks.read(arguments.masks, plan) if arguments.masks else ([], [])
    render.render(plan, rows, tests, inputs["figures"], arguments.output, masked)


def _render_partial(plan: Plan, output: Path) -> None:
    from reports import collect, compare, figures, masks, masks_page, render

    rows = collect.collect(plan, partial=True)
    if not rows:
        raise UserError(f"no run of {plan.benchmark} has finished yet")
    figures.draw(plan, rows, output.parent / "figures")
    masked = masks.measure(plan, partial=True)
    if masked[0]:
        masks_page.draw(plan, masked[0], output.parent / "figures")
    render.render(plan, rows, compare.compare(plan, rows), output.parent / "figures", output, masked)
    missing = len(collect.missing_runs(plan, rows))
    print(f"{output}: {len(plan.identities()) - missing} of {len(plan.identities())} runs")


def _progress(arguments: argparse.Namespace) -> None:
    from reports import progress

    plan = _plan(arguments)
    while True:
        print(progress.summary(plan), flush=True)
        if not arguments.watch:
            return
        time.sleep(arguments.watch)
        print()


def _settings(arguments: argparse.Namespace) -> None:
    from reports import collect, settings

    plan = _plan(arguments)
    print(settings.table(plan, collect.collect(plan, partial=True)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports", description="Runs into tables, tests, figures and pages."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)

    def add(name: str, call, help_text: str, output: str | None) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
        verb = verbs.add_parser(name, help=help_text, description=help_text)
        source = verb.add_mutually_exclusive_group(required=True)
        source.add_argument("--config", type=Path, metavar="YAML", help="the benchmark's config file")
        source.add_argument("--plan", metavar="JSON", help="the same config as a JSON string")
        if output:
            verb.add_argument("--output", type=Path, required=True, help=output)
        verb.set_defaults(call=call)
        return verb

    verb = add("collect", _collect, "Every planned run's record as one CSV.", "records.csv to write")
    verb.add_argument("--partial", action="store_true", help="accept missing runs")
    verb = add("compare", _compare, "Tests of every method against the control.", "comparisons.csv to write")
    verb.add_argument("--records", type=Path, required=True, help="records.csv")
    verb = add(
        "masks",
        _masks,
        "Where masks fell, and how far the masks of seeds and datasets agree.",
        "masks.csv to write; mask_overlaps.csv goes beside it",
    )
    verb.add_argument("--partial", action="store_true", help="accept missing runs")
    verb = add("figures", _figures, "Few-shot curves and gains over zero-shot.", "folder of PNG files to write")
    verb.add_argument("--records", type=Path, required=True, help="records.csv")
    verb.add_argument("--comparisons", type=Path, required=True, help="comparisons.csv")
    verb.add_argument("--masks", type=Path, help="masks.csv, if the plan has mask methods")
    verb = add("render", _render, "The Markdown pages.", "index.md to write; datasets' pages go beside it")
    verb.add_argument("--records", type=Path, help="records.csv")
    verb.add_argument("--comparisons", type=Path, help="comparisons.csv")
    verb.add_argument("--figures", type=Path, help="folder of the figures")
    verb.add_argument("--masks", type=Path, help="masks.csv, if the plan has mask methods")
    verb.add_argument("--partial", action="store_true", help="from the runs themselves, as many as there are now")
    verb = add("progress", _progress, "Print what is done, running, failed and left, with the reasons.", None)
    verb.add_argument("--watch", type=float, metavar="SECONDS", help="print it again and again, until Control-C")
    add("settings", _settings, "Print how candidate settings compare on few-shot validation images.", None)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return run_verb(_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
