"""How candidate settings compare on the few-shot validation images: the table by which a config's settings were chosen.

The only table that reads `val` rows, and the only one that reads no others. Equal weight for every dataset, so that one
choice serves them all.
"""

from collections.abc import Sequence
from statistics import fmean

from reports import text
from reports.rows import Row
from rmt.plan import Plan


def mean_accuracies(plan: Plan, found: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Mean validation accuracy in percent by (label, shots): over seeds within a dataset, then over datasets.

    Of the config's first protocol, since validation images of others may be of fewer classes.
    """
    protocol = plan.config["protocols"][0]
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in found:
        if row["eval_set"] == "val" and row["protocol"] == protocol:
            cells.setdefault((row["method"], row["shots"]), {}).setdefault(row["dataset"], []).append(row["accuracy"])
    return {
        cell: fmean(fmean(values) for values in datasets.values())
        for cell, datasets in cells.items()
        if len(datasets) == len(plan.trained_on(protocol))
    }


def table(plan: Plan, found: Sequence[Row]) -> str:
    """Markdown: a row per label, a column per number of shots, their mean; the best label of each method in bold.

    A recipe that selects on the test set has nothing to choose here, and no bold.
    """
    means, shots = mean_accuracies(plan, found), plan.config["shots"]
    averages = {
        label: fmean(means[label, one] for one in shots)
        for label in plan.methods
        if all((label, one) in means for one in shots)
    }
    best = {
        use: max((label for label in averages if plan.methods[label].use == use), key=lambda label: averages[label])
        for use in {plan.methods[label].use for label in averages if not plan.methods[label].entry.oracle}
    }
    body = []
    for label, method in plan.methods.items():
        cells = [f"{means[label, one]:.1f}" if (label, one) in means else text.MISSING for one in shots]
        average = f"{averages[label]:.1f}" if label in averages else text.MISSING
        differences = ", ".join(f"{name} {value}" for name, value in method.overrides.items()) or "defaults"
        chosen = best.get(method.use) == label
        body.append([text.code(label), text.escaped(differences), *cells, f"**{average}**" if chosen else average])
    header = ["label", "settings", *(f"{text.count(one, 'shot')}" for one in shots), "mean"]
    return text.table(header, body, left=2)
