"""Stacks under few_shot: a method X on what T left behind, against X alone and against T alone."""

from collections.abc import Sequence
from typing import NamedTuple

from reports import paired, text
from reports.cells import Scores, level_name, levels, shot_levels
from reports.comparisons import Comparison, Comparisons, Scope
from reports.paired import Predictions
from reports.tables import Table, difference, too_small_note
from rmt.plan import Plan

ORDER = {"tower": "tower below", "prompts": "prompts below"}
"""What the stacked method stands on, by what the method below offers."""


class Stack(NamedTuple):
    """Labels of a stack, of its method alone and of what lies below, and which part of CLIP that changed."""

    label: str
    method: str
    below: str
    order: str

    def against(self, scope: Scope) -> str:
        """What the stack is compared with: its method alone, or what lies below alone."""
        return self.method if scope == "stack_method" else self.below


SCOPES: tuple[Scope, Scope] = ("stack_method", "stack_below")


def stacks(plan: Plan) -> list[Stack]:
    """The stacks X+T of a plan whose X is planned alone too; T always is."""
    found = []
    for label, planned in plan.methods.items():
        alone = plan.methods.get(label.partition("+")[0])
        if planned.below and alone is not None and alone.use == planned.use:
            offers = plan.methods[planned.below].entry.offers
            found.append(Stack(label, alone.label, planned.below, ORDER[str(offers)]))
    return found


def across(scores: Scores) -> list[Comparison]:
    """The tests over datasets: a family of all stacks for each number of shots, and for each of the two parts."""
    return [
        one
        for shots in levels(scores.plan)
        for scope in SCOPES
        for one in paired.corrected(
            [paired.across(scores, scope, stack.label, stack.against(scope), shots) for stack in stacks(scores.plan)]
        )
    ]


def within(scores: Scores, predictions: Predictions, dataset: str) -> list[Comparison]:
    """The tests on one dataset: families as across datasets, without the average over shots."""
    return [
        one
        for shots in shot_levels(scores.plan)
        for scope in SCOPES
        for one in paired.corrected(
            [
                paired.within(scores, predictions, scope, stack.label, stack.against(scope), dataset, shots)[0]
                for stack in stacks(scores.plan)
            ]
        )
    ]


def _changed(plan: Plan, stack: Stack) -> list[str]:
    """Hyperparameters that the stack sets otherwise than its method alone."""
    mine, alone = (dict(plan.methods[label].overrides) for label in (stack.label, stack.method))
    return [name for name in dict.fromkeys([*mine, *alone]) if mine.get(name) != alone.get(name)]


def _settings_notes(plan: Plan) -> list[str]:
    """Stacks that differ from their method alone in more than what they stand on."""
    return [
        f"{text.escaped(plan.display(stack.label))} and {text.escaped(plan.display(stack.method))} also differ in "
        f"{text.listed([text.code(name) for name in changed])}, so not all of the difference is the stack's."
        for stack in stacks(plan)
        if (changed := _changed(plan, stack))
    ]


def _tested(one: Comparison | None) -> list[str]:
    if one is None or not one.n:
        return [text.MISSING] * 3
    return [text.points(one.mean_difference) + one.mark, text.interval(one.low, one.high), text.p_value(one.p_holm)]


def _mean(scores: Scores, method: str, shots: int) -> str:
    mean = scores.mean(method, shots)
    return text.MISSING if mean is None else f"{mean:.1f}"


def table(scores: Scores, tests: Comparisons) -> Table:
    """Every stack at every number of shots, over datasets: its method alone, the stack, what lies below alone."""
    plan = scores.plan
    body = []
    for stack in stacks(plan):
        for shots in levels(plan):
            method, below = (tests.get(scope, stack.label, "", shots) for scope in SCOPES)
            body.append(
                [
                    text.escaped(plan.display(stack.label)),
                    stack.order,
                    level_name(shots),
                    _mean(scores, stack.method, shots),
                    _mean(scores, stack.label, shots),
                    *_tested(method),
                    _mean(scores, stack.below, shots),
                    *_tested(below),
                ]
            )
    header = ["Stack", "stands on", "shots", "X alone", "X + T", "less X", "95 % interval", "p (Holm)"]
    header += ["T alone", "less T", "95 % interval", "p (Holm)"]
    families = [tests.family(scope, "", shots) for scope in SCOPES for shots in levels(plan)]
    tested = [one for family in families for one in family if one.n]
    notes = [
        "X is the method, T what it stands on: *tower below*, X on the image tower whose masks T tuned; *prompts "
        f"below*, masks X tuned on the prompts that T learnt. Mean test accuracy in percent over n = "
        f"{text.count(len(scores.datasets), 'dataset')}; differences in points with a BCa bootstrap interval over "
        "datasets, approximate. A stack is worth its cost where it is above *both* parts."
    ]
    if tested:
        size = text.spread(one.family_size for one in tested)
        refusal = too_small_note(
            max(families, key=lambda family: sum(one.verdict == "n too small" for one in family)), "dataset"
        )
        notes.append(
            "↑ ↓ significantly above or below X, or T: Wilcoxon signed-rank test, n = "
            f"{text.spread(one.n for one in tested)} datasets, Holm within a family of all {size} stacks for each "
            f"number of shots and each of the two parts. {refusal}".rstrip()
        )
    return Table(text.table(header, body, left=3), notes + _settings_notes(plan))


def dataset_table(scores: Scores, tests: Comparisons, dataset: str) -> Table:
    """Every stack on one dataset: its difference to either part by shots, over test images."""
    plan = scores.plan
    body = [
        [
            text.escaped(plan.display(stack.label)),
            stack.order,
            text.escaped(plan.display(stack.against(scope))),
            *(difference(tests.get(scope, stack.label, dataset, shots)) for shots in shot_levels(plan)),
        ]
        for stack in stacks(plan)
        for scope in SCOPES
    ]
    tested = [
        one for scope in SCOPES for shots in shot_levels(plan) for one in tests.family(scope, dataset, shots) if one.n
    ]
    notes = ["Nothing could be compared."]
    if tested:
        notes = [
            "Points above or below what the third column names; 95 % percentile bootstrap interval over n = "
            f"{text.spread(one.n for one in tested)} test images, p of the sign-flip permutation test, Holm within a "
            f"family of {text.spread(one.family_size for one in tested)} stacks for each number of shots and each of "
            "the two parts. ↑ ↓ significant."
        ]
    header = ["Stack", "stands on", "against", *map(level_name, shot_levels(plan))]
    return Table(text.table(header, body, left=3), notes)


def _verdicts(plan: Plan, found: Sequence[Comparison | None], verdict: str) -> list[str]:
    return [text.escaped(plan.display(one.control)) for one in found if one is not None and one.verdict == verdict]


def findings(scores: Scores, tests: Comparisons) -> list[str]:
    """On how many datasets each stack is above both of its parts, and what is decided of it."""
    plan, said = scores.plan, []
    for stack in stacks(plan):
        parts, decided = [], []
        for shots in shot_levels(plan):
            three = [scores.complete(label, shots) for label in (stack.label, stack.method, stack.below)]
            shared = [dataset for dataset in three[0] if dataset in three[1] and dataset in three[2]]
            if shared:
                above = sum(three[0][name] > max(three[1][name], three[2][name]) for name in shared)
                parts.append(f"{above} of {text.count(len(shared), 'dataset')} at {level_name(shots)}")
            both = [tests.get(scope, stack.label, "", shots) for scope in SCOPES]
            for verdict, word in (("better", "above"), ("worse", "below")):
                names = _verdicts(plan, both, verdict)
                decided += [f"significantly {word} {text.listed(names)} at {level_name(shots)}"] if names else []
        if parts:
            sentence = f"{text.escaped(plan.display(stack.label))} is above both of its parts on {text.listed(parts)}"
            said.append(f"{sentence}; across datasets {text.listed(decided)}." if decided else f"{sentence}.")
    return said
