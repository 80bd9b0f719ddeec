"""A few plain sentences from the numbers: the same ones whether the control wins or loses."""

from reports import statistics, text
from reports.cells import AVERAGE, Scores, level_name, levels, shot_levels, zero_shot_label
from reports.comparisons import Comparisons
from reports.tables import best_methods


def _named(scores: Scores, methods: list[str]) -> str:
    return text.listed([text.escaped(scores.plan.display(method)) for method in methods])


def _leader(scores: Scores, shots: int) -> str:
    """Who is best at one number of shots, and where the control stands."""
    plan = scores.plan
    level = level_name(shots)
    means = {method: scores.mean(method, shots) for method in scores.methods if not scores.oracle(method)}
    complete = {method: mean for method, mean in means.items() if mean is not None}
    if not complete:
        return f"At {level} no method has all its runs, so no mean is given."
    best = [method for method in scores.methods if method in best_methods(plan, scores, shots)]
    top = complete[best[0]]
    baseline = zero_shot_label(plan)
    zero = complete.get(baseline) if baseline else None
    verb = "has" if len(best) == 1 else "share"
    sentence = f"At {level} **{_named(scores, best)}** {verb} the highest mean accuracy, {top:.1f} %"
    if zero is not None and baseline not in best:
        sentence += f" ({text.points(top - zero)} points over zero-shot)"
    control = plan.control
    name = text.escaped(plan.display(control))
    if len(complete) == 1:
        return f"{sentence}, and nothing else can be ranked."
    if control not in complete:
        reason = "chose settings on the test set and is not ranked" if scores.oracle(control) else "has missing runs"
        return f"{sentence}; the control {name} {reason}."
    behind = top - complete[control]
    if control in best:
        rest = {method: mean for method, mean in complete.items() if method not in best}
        if not rest:
            return f"{sentence}."
        second = max(rest, key=lambda method: rest[method])
        sentence += f"; {'it is' if len(best) == 1 else 'one of them is'} the control"
        return f"{sentence}; next is {_named(scores, [second])} with {rest[second]:.1f} %."
    rank = 1 + sum(mean > complete[control] for mean in complete.values())
    sentence += (
        f"; the control {name} is {text.ordinal(rank)} of {len(complete)} with {complete[control]:.1f} %, "
        f"{behind:.1f} points behind"
    )
    return f"{sentence}."


def _against_zero_shot(scores: Scores) -> str:
    """On how many datasets the control is above what adapts nothing."""
    plan = scores.plan
    baseline = zero_shot_label(plan)
    if baseline is None or baseline == plan.control:
        return ""
    parts = []
    for shots in shot_levels(plan):
        zero, control = scores.complete(baseline, shots), scores.complete(plan.control, shots)
        shared = [dataset for dataset in control if dataset in zero]
        if shared:
            above = sum(control[dataset] > zero[dataset] for dataset in shared)
            parts.append(f"{above} of {text.count(len(shared), 'dataset')} at {level_name(shots)}")
    name = text.escaped(plan.display(plan.control))
    return f"{name} is above zero-shot on {text.listed(parts)}." if parts else ""


def _across(scores: Scores, tests: Comparisons) -> str:
    """What the tests over datasets allow to be said."""
    plan = scores.plan
    families = {shots: [one for one in tests.family("across", "", shots) if one.n] for shots in levels(plan)}
    tested = [one for family in families.values() for one in family]
    if not tested:
        return ""
    refused = [one for one in tested if one.verdict == "n too small"]
    if len(refused) == len(tested):
        one = min(refused, key=lambda refused: refused.smallest_p)
        return (
            f"Across datasets nothing can be called significant, in either direction: with n = {one.n} the smallest "
            f"possible p is {text.p_value(one.smallest_p)}, and {text.count(one.family_size, 'comparison')} with the "
            f"control need at least {statistics.units_needed(one.family_size)} datasets."
        )
    parts = []
    for shots, family in families.items():
        marked = {verdict: [one.method for one in family if one.verdict == verdict] for verdict in ("better", "worse")}
        said = [
            f"{_named(scores, methods)} {'is' if len(methods) == 1 else 'are'} significantly {verdict}"
            for verdict, methods in marked.items()
            if methods
        ]
        if said:
            where = "on average over shots" if shots == AVERAGE else f"at {level_name(shots)}"
            parts.append(f"{where} {text.listed(said)}")
    if not parts:
        return f"Across datasets none of {len(tested)} comparisons with the control is decided."
    return f"Across datasets, against the control: {'; '.join(parts)}; nothing else is decided."


def _within(scores: Scores, tests: Comparisons) -> str:
    """How many of the comparisons on single datasets are decided, and which way."""
    plan = scores.plan
    tested = [
        one
        for dataset in scores.datasets
        for shots in shot_levels(plan)
        for one in tests.family("within", dataset, shots)
        if one.n and one.verdict != "n too small"
    ]
    if not tested:
        return ""
    by_level = []
    for shots in shot_levels(plan):
        verdicts = [one.verdict for one in tested if one.shots == shots]
        won, lost, undecided = (verdicts.count(verdict) for verdict in ("worse", "better", "undecided"))
        by_level.append(f"{won} won, {lost} lost, {undecided} undecided at {level_name(shots)}")
    name = text.escaped(plan.display(plan.control))
    sentence = (
        f"Within single datasets, {name} against each other method in {text.count(len(tested), 'comparison')}: "
        f"{'; '.join(by_level)}."
    )
    lost_to = {method: [one for one in tested if one.method == method] for method in scores.others}
    losses = {method: sum(one.verdict == "better" for one in found) for method, found in lost_to.items()}
    most = max(losses.values())
    if most:
        winners = [method for method in losses if losses[method] == most]
        each = " each" if len(winners) > 1 else ""
        sentence += f" It loses most often to {_named(scores, winners)}: {most} of {len(lost_to[winners[0]])}{each}."
    return sentence


def _did_nothing(scores: Scores) -> str:
    """Runs in which mask tuning flipped nothing."""
    plan = scores.plan
    counts = {method: sum(scores.unflipped(method, shots) for shots in shot_levels(plan)) for method in scores.methods}
    affected = [f"{_named(scores, [method])} ({text.count(runs, 'run')})" for method, runs in counts.items() if runs]
    return f"Mask tuning flipped no mask, and so changed nothing, in {text.listed(affected)}." if affected else ""


def findings(scores: Scores, tests: Comparisons) -> list[str]:
    """Sentences for the top of the page, in the order: who leads, the control, significance, runs without effect."""
    sentences = [_leader(scores, shots) for shots in shot_levels(scores.plan)]
    sentences += [
        _against_zero_shot(scores),
        _across(scores, tests),
        _within(scores, tests),
        _did_nothing(scores),
    ]
    return [sentence for sentence in sentences if sentence]
