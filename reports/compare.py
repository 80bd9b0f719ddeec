"""Who is compared with whom, and which comparisons are corrected together.

The families follow from the config alone, and each has one number of shots:

- few_shot: every method against the control, across datasets (the average over shots too) and within each dataset;
  every stack against either of its parts (`reports.synergy`).
- base_to_new: every method against the control, on H across datasets, and within each dataset on base and on new.
- domain_shift: every method against the control within each test set, and across the datasets that were trained on, if
  there are several, on the mean over their shifted sets.
- cross_dataset: every method against the control over targets; every method against zero-shot over targets, and within
  each pair of a source and a target.
"""

from functools import partial

from reports import base_to_new, cross_dataset, domain_shift, literature, paired, synergy
from reports.base_to_new import HarmonicMeans
from reports.cells import Measure, Scores, levels, settings, shot_levels, zero_shot_label
from reports.comparisons import CONTROL_SCOPES, Comparison
from reports.cross_dataset import Transfer
from reports.domain_shift import Shifted
from reports.paired import Predictions
from reports.rows import Row
from rmt.plan import Plan


def _across(measure: Measure, shots: int) -> list[Comparison]:
    """The omnibus test, and every method against the control, over datasets."""
    control = measure.plan.control
    family = [paired.across(measure, "across", method, control, shots) for method in measure.others]
    return [paired.omnibus(measure, shots), *paired.corrected(family)]


def _within(scores: Scores, predictions: Predictions, dataset: str) -> list[Comparison]:
    """Every method against the control on one dataset, with the diagnostics of each number of shots."""
    found: list[Comparison] = []
    for shots in shot_levels(scores.plan):
        both = [
            paired.within(scores, predictions, "within", method, scores.plan.control, dataset, shots)
            for method in scores.others
        ]
        found += paired.corrected([one for one, _ in both])
        found += [diagnostic for _, diagnostics in both for diagnostic in diagnostics]
    return found


def _published(scores: Scores, predictions: Predictions, dataset: str) -> list[Comparison]:
    def blank(method: str, shots: int) -> Comparison:
        return paired.blank(scores.setting, "published", method, "", dataset, shots)

    return literature.compare(blank, scores.plan, scores, dataset, partial(predictions.right, scores.setting.eval_set))


def _few_shot(plan: Plan, rows: list[Row], backbone: str) -> list[Comparison]:
    (scores,) = (Scores(plan, rows, setting) for setting in settings(plan, "few_shot", backbone))
    found = [one for shots in levels(plan) for one in _across(scores, shots)] + synergy.across(scores)
    for dataset in scores.datasets:
        predictions = Predictions(plan, "few_shot", backbone, dataset, rows)
        found += _within(scores, predictions, dataset) + _published(scores, predictions, dataset)
        found += synergy.within(scores, predictions, dataset)
    return found


def _base_to_new(plan: Plan, rows: list[Row], backbone: str) -> list[Comparison]:
    means = HarmonicMeans(plan, rows, backbone)
    found = [one for shots in shot_levels(plan) for one in _across(means, shots)]
    for dataset in means.datasets:
        predictions = Predictions(plan, base_to_new.PROTOCOL, backbone, dataset, rows)
        found += _within(means.base, predictions, dataset) + _within(means.new, predictions, dataset)
    return found


def _domain_shift(plan: Plan, rows: list[Row], backbone: str) -> list[Comparison]:
    shifted = Shifted(plan, rows, backbone)
    # One dataset that was trained on, as ImageNet usually is, is no sample of datasets.
    several = len(shifted.datasets) > 1
    found = [one for shots in shot_levels(plan) for one in _across(shifted, shots)] if several else []
    for dataset in shifted.datasets:
        predictions = Predictions(plan, domain_shift.PROTOCOL, backbone, dataset, rows)
        for scores in (shifted.source, *shifted.sets(dataset).values()):
            found += _within(scores, predictions, dataset)
    return found


def _cross_dataset(plan: Plan, rows: list[Row], backbone: str) -> list[Comparison]:
    transfer, baseline = Transfer(plan, rows, backbone), zero_shot_label(plan)
    found = [one for shots in shot_levels(plan) for one in _across(transfer, shots)]
    if baseline is None:
        return found
    adapting = [method for method in transfer.methods if method != baseline]
    for shots in shot_levels(plan):
        family = [paired.across(transfer, "transfer", method, baseline, shots) for method in adapting]
        found += paired.corrected(family)
    for source in transfer.sources:
        predictions = Predictions(plan, cross_dataset.PROTOCOL, backbone, source, rows)
        for target in plan.targets(cross_dataset.PROTOCOL, source):
            scores = transfer.by_set[target]
            for shots in shot_levels(plan):
                family = [
                    paired.within(scores, predictions, "transfer", method, baseline, source, shots)[0]
                    for method in adapting
                ]
                found += paired.corrected(family)
    return found


FAMILIES = {
    "few_shot": _few_shot,
    base_to_new.PROTOCOL: _base_to_new,
    domain_shift.PROTOCOL: _domain_shift,
    cross_dataset.PROTOCOL: _cross_dataset,
}


def compare(plan: Plan, rows: list[Row]) -> list[Comparison]:
    """All tests of a benchmark.

    Args:
        plan: the checked config; its control, protocols, shots, methods and datasets declare the families.
        rows: records.csv; the runs' predictions are read from the results folder.

    Raises:
        FileNotFoundError: a collected run has no predictions.
        BadRecord: predictions contradict a record or were made on different images.
    """
    return [
        one
        for protocol in plan.config["protocols"]
        for backbone in plan.config["backbones"]
        for one in FAMILIES[protocol](plan, rows, backbone)
    ]


def summary_line(found: list[Comparison]) -> str:
    """For the terminal: how many tests, and how many of them mark something."""
    control = [one for one in found if one.scope in CONTROL_SCOPES]
    others = [one for one in found if one.scope in ("transfer", *synergy.SCOPES)]
    line = f"{len(control)} comparisons with the control, {sum(bool(one.mark) for one in control)} of them significant"
    return f"{line}; {len(others)} others, {sum(bool(one.mark) for one in others)} significant" if others else line
