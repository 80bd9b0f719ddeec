"""Parts of the pages beside few_shot's accuracy: stacks and the other protocols, as headings, tables and figures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reports import base_to_new, cross_dataset, domain_shift, synergy, tables, text
from reports.base_to_new import HarmonicMeans
from reports.cells import (
    Measure,
    Scores,
    Setting,
    dataset_name,
    heat_map_name,
    level_name,
    settings,
    shot_levels,
    trade_off_name,
    zero_shot_label,
)
from reports.comparisons import Comparison, Comparisons
from reports.cross_dataset import Transfer
from reports.domain_shift import Shifted
from reports.rows import Row
from reports.tables import Table
from rmt import registry
from rmt.plan import Plan

Link = Callable[[str], str]
"""From a figure's file name to the link that the page shows it by."""


class Block(NamedTuple):
    """A heading, a table or a figure with what stands beneath it; level 0 has no heading and a folded table."""

    heading: str
    level: int
    table: str = ""
    notes: Sequence[str] = ()
    figure: str = ""
    caption: str = ""


@dataclass
class Part:
    """A second-level section of the index page, with its findings and its rules."""

    title: str
    text: list[str]
    blocks: list[Block] = field(default_factory=list)
    findings: list[tuple[str, list[str]]] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Where links to its heading lead."""
        return self.title.lower().replace(" ", "-")


def _tabled(heading: str, level: int, table: Table) -> Block:
    return Block(heading, level, table.table, table.notes)


def absent(plan: Plan, protocol: str) -> str:
    """Why some methods have no runs under a protocol; empty if all have."""
    missing = [label for label in plan.methods if not plan.takes_part(label, protocol)]
    if not missing:
        return ""
    names = text.listed([text.escaped(plan.display(label)) for label in missing])
    they = "it answers" if len(missing) == 1 else "they answer"
    sentence = (
        f"{names} {'has' if len(missing) == 1 else 'have'} no runs here: {they} only for the classes that were "
        "trained on, and other classes are asked for."
    )
    if plan.control in missing:
        sentence += " The control is among them, so nothing is compared with a control."
    return sentence


def _suffix(plan: Plan, backbone: str) -> str:
    # Headings must differ, or links to them would all lead to the first.
    return f" ({registry.BACKBONES[backbone].label})" if len(plan.config["backbones"]) > 1 else ""


def _finding(plan: Plan, protocol: str, backbone: str, sentences: list[str]) -> tuple[str, list[str]]:
    return f"{protocol}, {registry.BACKBONES[backbone].label}", sentences


def _across(measure: Measure, tests: Comparisons, what: str, shots: int, suffix: str) -> Iterator[Block]:
    """The tests over datasets behind the marks, folded away."""
    if measure.others:
        control = text.escaped(measure.plan.display(measure.plan.control))
        heading = f"{what} against {control}, {level_name(shots)}{suffix}: differences, intervals, p"
        yield _tabled(heading, 0, tables.across_table(measure, tests, shots))


def _trade_off(plan: Plan, protocol: str, backbone: str, link: Link, caption: str) -> Block:
    name = trade_off_name(protocol, backbone)
    dashed = " Dashed: zero-shot." if zero_shot_label(plan) else ""
    return Block("", 0, figure=link(name), caption=f"{caption}{dashed} Methods with missing runs are left out.")


def _base_to_new(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], link: Link) -> Part:
    protocol = base_to_new.PROTOCOL
    part = Part(
        "Base to new classes",
        [
            "Trained on the first half of each dataset's classes (*base*); both halves are evaluated, each among its "
            "own classes. † ‡ on H come from tests across datasets, on base and new from tests within the dataset.",
            absent(plan, protocol),
        ],
    )
    for backbone in plan.config["backbones"]:
        scores, suffix = HarmonicMeans(plan, rows, backbone), _suffix(plan, backbone)
        tests, halves = Comparisons(found, scores.setting), _halves(found, scores)
        caption = f"Base against new classes, means over datasets{suffix}."
        part.blocks.append(_trade_off(plan, protocol, backbone, link, caption))
        for shots in shot_levels(plan):
            where = f"{level_name(shots)}{suffix}"
            part.blocks += [
                _tabled(f"Base to new, {where}", 3, base_to_new.mean_table(scores, tests, shots)),
                _tabled(
                    f"Base to new, {where}, each dataset", 4, base_to_new.matrix(scores, halves, shots, "{dataset}.md")
                ),
                *_across(scores, tests, "H", shots, suffix),
            ]
        part.findings.append(_finding(plan, protocol, backbone, base_to_new.findings(scores)))
        if scores.others and not part.rules:
            size = text.count(len(scores.others), "comparison")
            part.rules.append(
                f"base_to_new, across datasets (n = {len(scores.datasets)}): every method against the control on H, "
                f"one family per number of shots, {size} each. Within each dataset: on base and on new, one family per "
                f"dataset, half of the classes and number of shots, {size} each."
            )
    return part


def _halves(found: Sequence[Comparison], scores: HarmonicMeans) -> list[Comparisons]:
    return [Comparisons(found, one.setting) for one in (scores.base, scores.new)]


def _domain_shift(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], link: Link) -> Part:
    protocol = domain_shift.PROTOCOL
    part = Part(
        "Shifted test sets",
        [
            "Trained as under few_shot and evaluated on the dataset's own test images and on test sets of the same "
            "classes from elsewhere. † ‡ come from tests within each test set.",
            absent(plan, protocol),
        ],
    )
    for backbone in plan.config["backbones"]:
        scores, suffix = Shifted(plan, rows, backbone), _suffix(plan, backbone)
        several, tests = len(scores.datasets) > 1, Comparisons(found, scores.setting)
        over = ", means over the datasets that were trained on" if several else ""
        caption = f"The source against the mean of its shifted sets{over}{suffix}."
        part.blocks.append(_trade_off(plan, protocol, backbone, link, caption))
        for shots in shot_levels(plan):
            where = f"{level_name(shots)}{suffix}"
            if several:
                table = domain_shift.mean_table(scores, tests, shots)
                part.blocks.append(_tabled(f"Mean over sources, {where}", 3, table))
                part.blocks += _across(scores, tests, "Mean of the shifted sets", shots, suffix)
            part.blocks += [
                _tabled(
                    f"Trained on {dataset_name(source)}, {where}",
                    4 if several else 3,
                    domain_shift.source_table(scores, found, source, shots),
                )
                for source in scores.datasets
            ]
        part.findings.append(_finding(plan, protocol, backbone, domain_shift.findings(scores)))
        if scores.others and not part.rules:
            size = text.count(len(scores.others), "comparison")
            across = (
                f" Across the datasets that were trained on (n = {len(scores.datasets)}): on the mean over the shifted "
                f"sets, one family per number of shots, {size} each."
                if several
                else " One dataset that was trained on is no sample of datasets, so nothing is tested across."
            )
            part.rules.append(
                "domain_shift, within each test set: every method against the control, one family per dataset that was "
                f"trained on, test set and number of shots, {size} each.{across}"
            )
    return part


def _cross_dataset(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], link: Link) -> Part:
    protocol = cross_dataset.PROTOCOL
    part = Part(
        "From one dataset to the others",
        [
            "Trained on one dataset and evaluated on every other, by that one's classes and prompts: what was "
            "forgotten of zero-shot, and what transfers. † ‡ compare with the control over targets, ↑ ↓ with "
            "zero-shot.",
            absent(plan, protocol),
        ],
    )
    for backbone in plan.config["backbones"]:
        scores, suffix = Transfer(plan, rows, backbone), _suffix(plan, backbone)
        tests = Comparisons(found, scores.setting)
        caption = f"The dataset that was trained on against the mean of the others{suffix}."
        part.blocks.append(_trade_off(plan, protocol, backbone, link, caption))
        for shots in shot_levels(plan):
            where = f"{level_name(shots)}{suffix}"
            part.blocks.append(
                _tabled(f"Forgotten and transferred, {where}", 3, cross_dataset.summary(scores, found, shots))
            )
            part.blocks += _across(scores, tests, "Mean of the others", shots, suffix)
            part.blocks += _matrices(scores, found, backbone, shots, suffix, link)
        part.findings.append(_finding(plan, protocol, backbone, cross_dataset.findings(scores, found)))
        if not part.rules:
            part.rules.append(_transfer_rule(scores))
    return part


def _transfer_rule(scores: Transfer) -> str:
    baseline = zero_shot_label(scores.plan)
    said = [
        f"cross_dataset, over targets (n = {len(scores.datasets)}): the target is the unit, sources and seeds averaged "
        "first; runs that share a target share its images and are not independent. Such a test speaks of other "
        "targets, for these sources."
    ]
    if scores.others:
        said.append(
            f"Every method against the control: one family per number of shots, "
            f"{text.count(len(scores.others), 'comparison')} each."
        )
    if baseline is not None:
        size = text.count(len(scores.methods) - 1, "comparison")
        said.append(
            f"Every method against zero-shot: another family per number of shots over targets, and within each of the "
            f"{len(scores.pairs())} pairs of a source and a target one family per number of shots, {size} each."
        )
    return " ".join(said)


def _matrices(
    scores: Transfer, found: Sequence[Comparison], backbone: str, shots: int, suffix: str, link: Link
) -> Iterator[Block]:
    """The heat map and its numbers; nothing without zero-shot."""
    plan = scores.plan
    if zero_shot_label(plan) is None:
        return
    where = f"{level_name(shots)}{suffix}"
    yield Block(
        f"Source by target, {where}",
        4,
        figure=link(heat_map_name(backbone, shots)),
        caption="Points over zero-shot, seeds averaged: blue above, red below, one scale centred at zero. Grey: the "
        "dataset that was trained on. ?: missing runs.",
    )
    if len(scores.sources) == 1:
        yield _tabled(f"Points over zero-shot, {where}, as a table", 0, cross_dataset.row_table(scores, found, shots))
        return
    for method in cross_dataset.shown_methods(scores):
        name = text.escaped(plan.display(method))
        yield _tabled(f"{name}, {where}, as a table", 0, cross_dataset.matrix(scores, found, method, shots))


def _stacks(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison]) -> Part:
    part = Part(
        "Synergy",
        [
            "Is a method better on what another one has tuned? Every stack under few_shot beside the method alone and "
            "beside what it stands on alone."
        ],
    )
    for setting in settings(plan, "few_shot"):
        scores, tests = Scores(plan, rows, setting), Comparisons(found, setting)
        heading = f"Stacks beside their parts{_suffix(plan, setting.backbone)}"
        part.blocks.append(_tabled(heading, 3, synergy.table(scores, tests)))
        part.findings.append(_finding(plan, "stacks", setting.backbone, synergy.findings(scores, tests)))
    size = text.count(len(synergy.stacks(plan)), "comparison")
    part.rules.append(
        "Stacks X + T under few_shot: against X, and against T, two families per number of shots (across datasets for "
        f"the average over shots too; within, per dataset), each of all stacks, {size}. That a stack is above both "
        "parts is said where both tests say so, which needs no further correction."
    )
    return part


def parts(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], link: Link) -> list[Part]:
    """Stacks, if there are any, and every planned protocol other than few_shot.

    Args:
        plan: the checked config.
        rows: records.csv.
        found: comparisons.csv.
        link: raises where a figure has not been drawn.
    """
    made = {
        base_to_new.PROTOCOL: _base_to_new,
        domain_shift.PROTOCOL: _domain_shift,
        cross_dataset.PROTOCOL: _cross_dataset,
    }
    protocols = plan.config["protocols"]
    first = [_stacks(plan, rows, found)] if "few_shot" in protocols and synergy.stacks(plan) else []
    rest = [make(plan, rows, found, link) for name, make in made.items() if name in protocols]
    for part in [*first, *rest]:
        part.text = [paragraph for paragraph in part.text if paragraph]
    return [*first, *rest]


def dataset_blocks(plan: Plan, rows: Sequence[Row], found: Sequence[Comparison], dataset: str) -> list[Block]:
    """The same on the page of one dataset."""
    blocks: list[Block] = []
    protocols = [name for name in plan.config["protocols"] if dataset in plan.trained_on(name)]
    control = text.escaped(plan.display(plan.control))
    for backbone in plan.config["backbones"]:
        suffix = _suffix(plan, backbone)
        if "few_shot" in protocols and synergy.stacks(plan):
            setting = Setting("few_shot", backbone, "test")
            scores, tests = Scores(plan, rows, setting), Comparisons(found, setting)
            blocks.append(_tabled(f"Synergy{suffix}", 2, synergy.dataset_table(scores, tests, dataset)))
        if base_to_new.PROTOCOL in protocols:
            means = HarmonicMeans(plan, rows, backbone)
            halves = _halves(found, means)
            blocks.append(_tabled(f"Base to new classes{suffix}", 2, base_to_new.dataset_table(means, halves, dataset)))
            if means.others:
                table = base_to_new.within_table(means, halves, dataset)
                blocks.append(_tabled(f"Base and new against {control}{suffix}", 3, table))
        if domain_shift.PROTOCOL in protocols:
            shifted = Shifted(plan, rows, backbone)
            for shots in shot_levels(plan) if shifted.others else []:
                heading = f"Shifted test sets against {control}, {level_name(shots)}{suffix}"
                blocks.append(_tabled(heading, 2, domain_shift.within_table(shifted, found, dataset, shots)))
        if cross_dataset.PROTOCOL in protocols and zero_shot_label(plan) is not None:
            transfer = Transfer(plan, rows, backbone)
            for shots in shot_levels(plan):
                heading = f"From here to the other datasets, {level_name(shots)}{suffix}"
                blocks.append(_tabled(heading, 2, cross_dataset.source_table(transfer, found, dataset, shots)))
    return blocks
