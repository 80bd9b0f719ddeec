"""One method against another: across datasets on any score, within a dataset on the stored predictions.

`reports.compare` says who is compared with whom and what is corrected together.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pyarrow
from numpy.typing import NDArray

from reports import statistics
from reports.cells import AVERAGE, VALIDATION, Measure, Scores, Setting, paired
from reports.comparisons import Comparison, Scope
from reports.rows import Row
from rmt.plan import Plan
from rmt.records import BadRecord, Identity


def blank(setting: Setting, scope: Scope, method: str, against: str, dataset: str, shots: int) -> Comparison:
    """A comparison of which nothing is known yet."""
    level = "average" if shots == AVERAGE else f"{shots}shot"
    family = "/".join(part for part in (setting.slug(), scope, dataset, level) if part)
    nan = math.nan
    return Comparison(
        scope=scope,
        family=family,
        protocol=setting.protocol,
        backbone=setting.backbone,
        eval_set=setting.eval_set,
        dataset=dataset,
        shots=shots,
        seed=None,
        method=method,
        control=against,
        n=0,
        seeds="",
        mean_difference=nan,
        median_difference=nan,
        low=nan,
        high=nan,
        interval="",
        test="",
        statistic=nan,
        p=nan,
        p_holm=nan,
        family_size=0,
        smallest_p=1.0,
        wins=0,
        ties=0,
        losses=0,
        effect=nan,
        verdict="missing",
    )


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """Holm within the family. A comparison without data is dropped first, so it does not count."""
    adjusted = statistics.holm([one.p for one in family])
    size = sum(not math.isnan(p) for p in adjusted)
    return [
        replace(
            one,
            p_holm=p,
            family_size=size,
            verdict=statistics.verdict(p, _direction(one), one.smallest_p, size),
        )
        for one, p in zip(family, adjusted, strict=True)
    ]


def _direction(one: Comparison) -> float:
    """Positive where the test speaks for the method: signed ranks across datasets, the mean within one."""
    return one.mean_difference if one.dataset else one.effect


def _seeds_of(plan: Plan) -> str:
    return " ".join(map(str, plan.config["seeds"]))


def across(measure: Measure, scope: Scope, method: str, against: str, shots: int) -> Comparison:
    """A method against another over datasets, before correction; datasets that either lacks are left out."""
    plan = measure.plan
    one = blank(measure.setting, scope, method, against, "", shots)
    pairs = paired(measure.complete(method, shots), measure.complete(against, shots))
    differences = statistics.rounded([score - other for score, other in pairs])
    if differences.size == 0:
        return one
    random = statistics.generator(one.family, method, against)
    interval = statistics.bca_interval(differences, plan.config["resamples"], random)
    tested = statistics.wilcoxon_control(differences)
    return replace(
        one,
        n=len(pairs),
        seeds=_seeds_of(plan),
        mean_difference=float(differences.mean()),
        median_difference=float(np.median(differences)),
        low=interval.low,
        high=interval.high,
        interval="" if math.isnan(interval.low) else "BCa bootstrap over datasets, approximate",
        test="Wilcoxon signed-rank over datasets",
        statistic=tested.statistic,
        p=tested.p,
        smallest_p=statistics.smallest_p(len(pairs)),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        effect=statistics.rank_biserial(differences),
    )


def omnibus(measure: Measure, shots: int) -> Comparison:
    """Friedman with Iman-Davenport over the methods that have scores, on the datasets that all of them have."""
    plan = measure.plan
    one = blank(measure.setting, "omnibus", "all", plan.control, "", shots)
    complete = {method: measure.complete(method, shots) for method in measure.methods}
    present = [found for found in complete.values() if found]
    shared = [dataset for dataset in measure.datasets if all(dataset in found for found in present)]
    table = np.array([[found[dataset] for found in present] for dataset in shared])
    tested = statistics.friedman_iman_davenport(table)
    differ = "missing" if math.isnan(tested.p) else "differ" if tested.p < statistics.ALPHA else "undecided"
    return replace(
        one,
        n=len(shared) if present else 0,
        seeds=_seeds_of(plan),
        test="Friedman, Iman-Davenport",
        statistic=tested.statistic,
        p=tested.p,
        family_size=len(present),
        smallest_p=math.nan,
        verdict=differ,
    )


class Predictions:
    """Which images of its evaluation sets each run of one protocol, backbone and dataset gets right.

    In one order of images for all runs. A file is read once for all of its evaluation sets.
    """

    def __init__(self, plan: Plan, protocol: str, backbone: str, dataset: str, rows: Iterable[Row]):
        """`rows` of other runs are left out, and of evaluation sets that the plan does not ask for."""
        self._cell = protocol, backbone, dataset
        self._results = Path(plan.config["results_folder"])
        self._benchmark = plan.benchmark
        self._sets = plan.evaluation_sets(protocol, dataset)
        self._correct = {
            (row["eval_set"], row["method"], row["shots"], row["seed"]): row["correct"]
            for row in rows
            if (row["protocol"], row["backbone"], row["dataset"]) == self._cell and row["eval_set"] != VALIDATION
        }
        self._images: dict[str, tuple[NDArray[np.object_], NDArray[np.int64]]] = {}
        self._known: dict[tuple[str, str, int, int], NDArray[np.bool_]] = {}

    def right(self, eval_set: str, method: str, shots: int, seed: int) -> NDArray[np.bool_]:
        """(images,) whether the run predicts the label.

        Raises:
            FileNotFoundError: the run has no predictions.
            BadRecord: predictions and record disagree, or the run was evaluated on other images.
        """
        if (eval_set, method, shots, seed) not in self._known:
            self._read((method, shots, seed))
        return self._known[eval_set, method, shots, seed]

    def _read(self, run: tuple[str, int, int]) -> None:
        path = Identity(self._benchmark, *self._cell, *run).folder(self._results) / "predictions.parquet"
        if not path.is_file():
            raise FileNotFoundError(2, "no such file", str(path))
        try:
            table = pandas.read_parquet(path, columns=["eval_set", "path", "label", "predicted"])
        except pyarrow.ArrowException as error:
            raise BadRecord(f"{path}: not a table of predictions: {' '.join(str(error).split())}") from error
        for eval_set in self._sets:
            if (eval_set, *run) in self._correct:
                part = table[table["eval_set"] == eval_set]
                self._known[eval_set, *run] = self._checked(path, part, eval_set, self._correct[eval_set, *run])

    def _checked(self, path: Path, table: pandas.DataFrame, eval_set: str, correct: int) -> NDArray[np.bool_]:
        paths = table["path"].to_numpy(dtype=object)
        order = np.argsort(paths, kind="stable")
        paths = paths[order]
        labels = table["label"].to_numpy()[order]
        right = table["predicted"].to_numpy()[order] == labels
        if (paths[1:] == paths[:-1]).any():
            raise BadRecord(f"{path}: an image occurs twice in evaluation set {eval_set!r}")
        if int(right.sum()) != correct:
            raise BadRecord(
                f"{path}: {int(right.sum())} of {right.size} predictions of {eval_set!r} are right, "
                f"the record says {correct}"
            )
        known = self._images.setdefault(eval_set, (paths, labels))
        if not (np.array_equal(paths, known[0]) and np.array_equal(labels, known[1])):
            raise BadRecord(
                f"{path}: evaluation set {eval_set!r} has other images or labels than in the other "
                f"runs on {self._cell[2]}"
            )
        return right


def _shared_runs(
    scores: Scores, method: str, against: str, dataset: str, shots: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Runs to be paired, as ((shots, seed) of the method, (shots, seed) of the other).

    Only seeds that both have; the one run of a method that uses no seed is paired with each run of the other.
    """
    methods = scores.plan.methods
    ours, theirs = scores.cell(method, dataset, shots), scores.cell(against, dataset, shots)
    our_seeds, their_seeds = sorted(ours.accuracies), sorted(theirs.accuracies)
    our_shots = shots if methods[method].entry.few_shot else 0
    their_shots = shots if methods[against].entry.few_shot else 0
    if our_shots == their_shots:
        return [((shots, seed), (shots, seed)) for seed in our_seeds if seed in their_seeds]
    return [((our_shots, our), (their_shots, their)) for our in our_seeds for their in their_seeds]


def within(
    scores: Scores, predictions: Predictions, scope: Scope, method: str, against: str, dataset: str, shots: int
) -> tuple[Comparison, list[Comparison]]:
    """A method against another on one dataset at one number of shots, before correction.

    Returns:
        The comparison, and its exact McNemar diagnostics by seed.

    Raises:
        FileNotFoundError, BadRecord: as `Predictions.right`.
    """
    plan, eval_set = scores.plan, scores.setting.eval_set
    one = blank(scores.setting, scope, method, against, dataset, shots)
    pairs = _shared_runs(scores, method, against, dataset, shots)
    if not pairs:
        return one, []
    # At how many seeds more (or fewer) the method is right, image by image: whole numbers, so that ties are exact.
    differences: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    diagnostics: list[Comparison] = []
    for ours, theirs in pairs:
        seed = ours[1] or theirs[1]  # 0 belongs to a method that uses none
        difference = predictions.right(eval_set, method, *ours).astype(np.int64)
        difference -= predictions.right(eval_set, against, *theirs)
        differences = difference + differences if diagnostics else difference
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        diagnostics.append(
            replace(
                one,
                scope="diagnostic",
                family="",
                seed=seed,
                n=difference.size,
                seeds=str(seed),
                mean_difference=100 * float(difference.mean()),
                test="exact McNemar",
                statistic=float(wins),
                p=statistics.mcnemar(wins, losses),
                smallest_p=math.nan,
                wins=wins,
                ties=difference.size - wins - losses,
                losses=losses,
                verdict="",
            )
        )
    points = 100 / len(pairs)
    resamples = plan.config["resamples"]
    random = statistics.generator(one.family, method, against)
    interval = statistics.percentile_interval(differences, resamples, random)
    tested = statistics.sign_flip(differences, resamples, random)
    comparison = replace(
        one,
        n=differences.size,
        seeds=" ".join(one.seeds for one in diagnostics),
        mean_difference=points * float(differences.mean()),
        median_difference=points * float(np.median(differences)),
        low=points * interval.low,
        high=points * interval.high,
        interval="percentile bootstrap over images",
        test="sign-flip permutation over images",
        statistic=points * tested.statistic,
        p=tested.p,
        smallest_p=max(1 / (resamples + 1), statistics.smallest_p(differences.size)),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        effect=statistics.rank_biserial(differences),
    )
    return comparison, diagnostics
