"""`python -m reports VERB`: collect, compare, masks, figures, render, each one line of the workflow; and settings."""

import argparse
import json
import sys
from pathlib import Path

from rmt import plan as plans
from rmt.errors import run_verb
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
    rows = collect.read(arguments.records, plan)
    tests = comparisons.read(arguments.comparisons)
    masked = masks.read(arguments.masks, plan) if arguments.masks else ([], [])
    render.render(plan, rows, tests, arguments.figures, arguments.output, masked)


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
    verb.add_argument("--records", type=Path, required=True, help="records.csv")
    verb.add_argument("--comparisons", type=Path, required=True, help="comparisons.csv")
    verb.add_argument("--figures", type=Path, required=True, help="folder of the figures")
    verb.add_argument("--masks", type=Path, help="masks.csv, if the plan has mask methods")
    add("settings", _settings, "Print how candidate settings compare on few-shot validation images.", None)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return run_verb(_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
