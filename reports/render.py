"""The generated pages: index.md and one page per dataset beside it. The same inputs give the same bytes."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from reports import findings, literature, masks_page, parts, provenance, recipes, statistics, tables, text
from reports.cells import (
    AVERAGE,
    Scores,
    Setting,
    dataset_name,
    figure_name,
    level_name,
    levels,
    settings,
    shot_levels,
    zero_shot_label,
)
from reports.collect import missing_runs
from reports.comparisons import Comparison, Comparisons
from reports.rows import Row
from rmt import registry
from rmt.errors import UserError
from rmt.plan import Plan
from rmt.records import atomic


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; cells are escaped in `text`
    )


class MissingFigure(UserError):
    """A figure that the page shows does not exist."""


class _View:
    """What both kinds of page need of one setting."""

    def __init__(self, plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], setting: Setting, several: bool):
        self.setting = setting
        self.scores = Scores(plan, rows, setting)
        self.tests = Comparisons(found, setting)
        self.heading = setting.heading()
        # Headings must differ, or links to them would all lead to the first.
        self.suffix = f" ({self.heading})" if several else ""


def _link(figures: Path, name: str, page: Path) -> str:
    """Relative link from a page to a figure.

    Raises:
        MissingFigure: it has not been drawn.
    """
    if not (figures / name).is_file():
        raise MissingFigure(f"{figures / name}: no such figure; draw it with `python -m reports figures`")
    return Path(os.path.relpath(figures / name, page.parent)).as_posix()


def _section(plan: Plan, view: _View, figures: Path, page: Path, all_settings: Sequence[Setting]) -> dict[str, Any]:
    scores, tests = view.scores, view.tests
    gains = zero_shot_label(plan) is not None and len(plan.methods) > 1
    return {
        "heading": view.heading,
        "suffix": view.suffix,
        "findings": findings.findings(scores, tests),
        "summary": tables.summary(scores, tests),
        "curves": _link(figures, figure_name("curves", view.setting, all_settings), page),
        "gains": _link(figures, figure_name("gains", view.setting, all_settings), page) if gains else "",
        "datasets": [
            {"link": f"[{dataset_name(name)}]({name}.md)", "accuracy": tables.dataset_table(scores, tests, name)}
            for name in scores.datasets
        ],
        "published": _published(plan, tests.published, summary=True),
        "across": [
            {"level": level_name(shots), "tests": tables.across_table(scores, tests, shots)} for shots in levels(plan)
        ],
        "within": [
            {"level": level_name(shots), "tests": tables.within_matrix(scores, tests, shots, "{dataset}.md")}
            for shots in shot_levels(plan)
        ],
    }


def _published(plan: Plan, found: Sequence[Comparison], summary: bool) -> tables.Table | None:
    """Ours beside the literature's numbers; None where no cell is shared."""
    if not found:
        return None
    show = literature.summary_table if summary else literature.dataset_table
    return tables.Table(show(plan, found), literature.notes(plan, found))


def _index(
    plan: Plan,
    rows: Sequence[Row],
    found: Sequence[Comparison],
    views: Sequence[_View],
    figures: Path,
    page: Path,
    masks: masks_page.Tables,
) -> dict[str, Any]:
    all_settings = [view.setting for view in views]
    protocols, backbones = plan.config["protocols"], plan.config["backbones"]
    groups = [(protocol, backbone) for protocol in protocols for backbone in backbones]
    runs_of = Counter(identity.protocol for identity in plan.identities())
    beside = parts.parts(plan, rows, found, lambda name: _link(figures, name, page))
    planned, missing = len(plan.identities()), len(missing_runs(plan, rows))
    once = [plan.display(label) for label, method in plan.methods.items() if not method.entry.few_shot]
    uses = {method.use for method in plan.methods.values()}
    compared = [label for label in plan.methods if label != plan.control]
    return {
        "benchmark": plan.benchmark,
        "notes": [" ".join(note.split()) for note in plan.config["notes"]],
        "runs": {"planned": f"{planned:,}", "found": f"{planned - missing:,}", "missing": missing},
        "methods": [text.escaped(plan.display(label)) for label in plan.methods],
        "once": text.listed([text.escaped(name) for name in once]) if once else "",
        "once_count": len(once),
        "control": text.escaped(plan.display(plan.control)),
        "others": compared,
        "datasets": [dataset_name(name) for name in plan.config["datasets"]],
        "backbones": [registry.BACKBONES[name].label for name in plan.config["backbones"]],
        "shots": shot_levels(plan),
        "seeds": plan.config["seeds"],
        "averaged": AVERAGE in levels(plan),
        "period": provenance.period(rows),
        "warnings": provenance.warnings(plan, rows),
        "protocols": [{"name": name, "runs": f"{runs_of[name]:,}"} for name in protocols],
        "sections": [_section(plan, view, figures, page, all_settings) for view in views],
        "parts": beside,
        "findings": [
            *((view.heading, findings.findings(view.scores, view.tests)) for view in views),
            *(one for part in beside for one in part.findings if one[1]),
        ],
        "groups": [
            {
                "heading": f"{protocol}, {registry.BACKBONES[backbone].label}",
                "folded": protocol != protocols[0],
                "cost": recipes.cost_table(plan, rows, protocol, backbone),
                "selection": recipes.selection_table(plan, rows, protocol, backbone),
            }
            for protocol, backbone in groups
        ],
        "masks": masks_page.sections(plan, masks, lambda name: _link(figures, name, page)),
        "cross_dataset": "cross_dataset" in plan.config["protocols"],
        "recipes": [
            {
                "heading": f"{text.listed(names)}, {registry.BACKBONES[backbone].label}",
                "recipes": recipes.recipes(plan, rows, names, backbone),
            }
            for backbone in backbones
            for names in recipes.alike(plan, rows, backbone)
        ],
        "alpha": statistics.ALPHA,
        "smallest": text.p_value(statistics.smallest_p(len(plan.config["datasets"]))),
        "needed": statistics.units_needed(max(1, len(compared))),
        "resamples": f"{plan.config['resamples']:,}",
        "smallest_within": f"{1 / (plan.config['resamples'] + 1):.1g}",
        "tiny": "tiny_clip" in plan.config["backbones"],
        "dropout": any(method.entry.masks for method in plan.methods.values()),
        "coop": "coop" in uses,
        "provenance": {
            "datasets": provenance.dataset_table(plan, rows),
            "origin": provenance.origin_table(rows),
            "missing": provenance.missing_lines(plan, rows),
        },
        "command": provenance.command(plan, rows),
        "config": provenance.config_yaml(plan),
        "citations": list(dict.fromkeys(method.entry.citation for method in plan.methods.values())),
    }


def _dataset_page(
    plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], views: Sequence[_View], dataset: str, index: str
) -> dict[str, Any]:
    entry = plan.datasets[dataset]
    return {
        "label": entry.label,
        "benchmark": plan.benchmark,
        "index": index,
        "classes": entry.classes or "as in its split",
        "note": text.escaped(entry.note),
        "images": provenance.test_images(rows, dataset),
        "template": text.code(entry.template),
        "origin": text.escaped(entry.citation),
        "licence": text.escaped(entry.licence),
        "control": text.escaped(plan.display(plan.control)),
        "sections": [
            {
                "suffix": view.suffix,
                "accuracy": tables.dataset_table(view.scores, view.tests, dataset),
                "within": [
                    {
                        "level": level_name(shots),
                        "tests": tables.within_table(view.scores, view.tests, dataset, shots),
                    }
                    for shots in (shot_levels(plan) if view.scores.others else [])
                ],
                "seeds": tables.seeds_table(view.scores, rows, dataset),
                "published": _published(
                    plan, [one for one in view.tests.published if one.dataset == dataset], summary=False
                ),
            }
            for view in views
            if dataset in view.scores.datasets
        ],
        "blocks": parts.dataset_blocks(plan, rows, found, dataset),
        "trained": any(dataset in plan.trained_on(protocol) for protocol in plan.config["protocols"]),
        "samples": provenance.sample_table(plan, rows, dataset),
    }


def _write(path: Path, page: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(
    plan: Plan,
    rows: Sequence[Row],
    found: Sequence[Comparison],
    figures: Path,
    output: Path,
    masks: masks_page.Tables = ([], []),
) -> list[Path]:
    """Write the pages of a benchmark.

    Args:
        plan: the checked config.
        rows: records.csv.
        found: comparisons.csv.
        figures: folder that `figures` has drawn into.
        output: the index page; the datasets' pages go beside it as {dataset}.md.
        masks: masks.csv and mask_overlaps.csv; empty without mask methods.

    Returns:
        The pages, the index last, so that an index exists only when all it links to does.

    Raises:
        MissingFigure: a figure has not been drawn.
    """
    all_settings = settings(plan, "few_shot")
    views = [_View(plan, rows, found, setting, len(all_settings) > 1) for setting in all_settings]
    environment = _environment()
    pages = []
    index = _index(plan, rows, found, views, figures, output, masks)
    for dataset in plan.config["datasets"]:
        pages.append(output.with_name(f"{dataset}.md"))
        content = _dataset_page(plan, rows, found, views, dataset, output.name)
        _write(pages[-1], environment.get_template("dataset.md.jinja").render(content))
    _write(output, environment.get_template("index.md.jinja").render(index))
    return [*pages, output]
