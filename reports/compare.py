"""Every method against the control: across datasets on the scores, within a dataset on the stored predictions.

The families of comparisons follow from the config alone. Across datasets there is one per number of shots and one for
the average over them; within datasets there is one per dataset and number of shots.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pyarrow
from numpy.typing import NDArray

from reports import literature, statistics
from reports.cells import AVERAGE, Scores, Setting, levels, others, paired, settings, shot_levels
from reports.comparisons import Comparison, Scope
from reports.rows import Row
from rmt.plan import Plan
from rmt.records import BadRecord, Identity


def _blank(setting: Setting, scope: Scope, control: str, method: str, dataset: str, shots: int) -> Comparison:
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
        control=control,
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


def _corrected(family: list[Comparison]) -> list[Comparison]:
    """Holm within the family. A comparison without data is dropped first, so it does not count."""
    corrected = statistics.holm([one.p for one in family])
    size = sum(not math.isnan(p) for p in corrected)
    return [
        replace(
            one,
            p_holm=p,
            family_size=size,
            verdict=statistics.verdict(p, _direction(one), one.smallest_p, size),
        )
        for one, p in zip(family, corrected, strict=True)
    ]


def _direction(one: Comparison) -> float:
    """Positive where the test speaks for the method: signed ranks across datasets, the mean within one."""
    return one.effect if one.scope == "across" else one.mean_difference


def _seeds_of(plan: Plan) -> str:
    return " ".join(map(str, plan.config["seeds"]))


def _across(plan: Plan, scores: Scores, method: str, shots: int) -> Comparison:
    one = _blank(scores.setting, "across", plan.control, method, "", shots)
    pairs = paired(scores.complete(method, shots), scores.complete(plan.control, shots))
    differences = statistics.rounded([score - control for score, control in pairs])
    if differences.size == 0:
        return one
    random = statistics.generator(one.family, method, plan.control)
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


def _omnibus(plan: Plan, scores: Scores, shots: int) -> Comparison:
    """Friedman with Iman-Davenport over the methods that have scores, on the datasets that all of them have."""
    one = _blank(scores.setting, "omnibus", plan.control, "all", "", shots)
    complete = {method: scores.complete(method, shots) for method in plan.methods}
    present = [found for found in complete.values() if found]
    shared = [dataset for dataset in scores.datasets if all(dataset in found for found in present)]
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


class _Predictions:
    """Which test images of one dataset each run gets right, in one order of images for all runs."""

    def __init__(self, plan: Plan, setting: Setting, dataset: str, rows: Iterable[Row]):
        self._setting = setting
        self._results = Path(plan.config["results_folder"])
        self._benchmark = plan.benchmark
        self._dataset = dataset
        self._correct = {(row["method"], row["shots"], row["seed"]): row["correct"] for row in rows}
        self._images: tuple[NDArray[np.object_], NDArray[np.int64]] | None = None
        self._known: dict[tuple[str, int, int], NDArray[np.bool_]] = {}

    def right(self, method: str, shots: int, seed: int) -> NDArray[np.bool_]:
        """(images,) whether the run predicts the label.

        Raises:
            FileNotFoundError: the run has no predictions.
            BadRecord: predictions and record disagree, or the run was evaluated on other images.
        """
        key = (method, shots, seed)
        if key not in self._known:
            self._known[key] = self._read(key)
        return self._known[key]

    def _read(self, key: tuple[str, int, int]) -> NDArray[np.bool_]:
        setting = self._setting
        identity = Identity(self._benchmark, setting.protocol, setting.backbone, self._dataset, *key)
        path = identity.folder(self._results) / "predictions.parquet"
        if not path.is_file():
            raise FileNotFoundError(2, "no such file", str(path))
        try:
            table = pandas.read_parquet(path, columns=["eval_set", "path", "label", "predicted"])
        except pyarrow.ArrowException as error:
            raise BadRecord(f"{path}: not a table of predictions: {' '.join(str(error).split())}") from error
        table = table[table["eval_set"] == setting.eval_set]
        paths = table["path"].to_numpy(dtype=object)
        order = np.argsort(paths, kind="stable")
        paths = paths[order]
        labels = table["label"].to_numpy()[order]
        right = table["predicted"].to_numpy()[order] == labels
        if (paths[1:] == paths[:-1]).any():
            raise BadRecord(f"{path}: an image occurs twice in evaluation set {setting.eval_set!r}")
        if int(right.sum()) != self._correct[key]:
            raise BadRecord(
                f"{path}: {int(right.sum())} of {right.size} predictions of {setting.eval_set!r} are right, "
                f"the record says {self._correct[key]}"
            )
        if self._images is None:
            self._images = paths, labels
        if not (np.array_equal(paths, self._images[0]) and np.array_equal(labels, self._images[1])):
            raise BadRecord(
                f"{path}: evaluation set {setting.eval_set!r} has other images or labels than in the other "
                f"runs on {self._dataset}"
            )
        return right


def _shared_runs(
    plan: Plan, scores: Scores, method: str, dataset: str, shots: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Runs to be paired, as ((shots, seed) of the method, (shots, seed) of the control).

    Only seeds that both have; the one run of a method that uses no seed is paired with each run of the other.
    """
    ours, theirs = scores.cell(method, dataset, shots), scores.cell(plan.control, dataset, shots)
    our_seeds, their_seeds = sorted(ours.accuracies), sorted(theirs.accuracies)
    our_shots = shots if plan.methods[method].entry.few_shot else 0
    their_shots = shots if plan.methods[plan.control].entry.few_shot else 0
    if our_shots == their_shots:
        return [((shots, seed), (shots, seed)) for seed in our_seeds if seed in their_seeds]
    return [((our_shots, our), (their_shots, their)) for our in our_seeds for their in their_seeds]


def _within(
    plan: Plan, scores: Scores, predictions: _Predictions, method: str, dataset: str, shots: int
) -> tuple[Comparison, list[Comparison]]:
    """The comparison on one dataset at one number of shots, and its McNemar diagnostics by seed."""
    one = _blank(scores.setting, "within", plan.control, method, dataset, shots)
    pairs = _shared_runs(plan, scores, method, dataset, shots)
    if not pairs:
        return one, []
    # At how many seeds more (or fewer) the method is right, image by image: whole numbers, so that ties are exact.
    differences: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    diagnostics: list[Comparison] = []
    for ours, theirs in pairs:
        seed = ours[1] or theirs[1]  # 0 belongs to a method that uses none
        difference = predictions.right(method, *ours).astype(np.int64) - predictions.right(plan.control, *theirs)
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
    random = statistics.generator(one.family, method, plan.control)
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


def _within_dataset(plan: Plan, scores: Scores, rows: list[Row], dataset: str) -> list[Comparison]:
    setting = scores.setting
    mine = [
        row
        for row in rows
        if row["dataset"] == dataset and Setting(row["protocol"], row["backbone"], row["eval_set"]) == setting
    ]
    predictions = _Predictions(plan, setting, dataset, mine)
    found: list[Comparison] = []
    for shots in shot_levels(plan):
        family, diagnostics = [], []
        for method in others(plan):
            comparison, by_seed = _within(plan, scores, predictions, method, dataset, shots)
            family.append(comparison)
            diagnostics += by_seed
        found += _corrected(family) + diagnostics

    def blank(method: str, shots: int) -> Comparison:
        return _blank(setting, "published", "", method, dataset, shots)

    return found + literature.compare(blank, plan, scores, dataset, predictions.right)


def compare(plan: Plan, rows: list[Row]) -> list[Comparison]:
    """All tests of a benchmark.

    Args:
        plan: the checked config; its control, shots, methods and datasets declare the families.
        rows: records.csv; the runs' predictions are read from the results folder.

    Raises:
        FileNotFoundError: a collected run has no predictions.
        BadRecord: predictions contradict a record or were made on different images.
    """
    found: list[Comparison] = []
    for setting in settings(plan, rows):
        scores = Scores(plan, rows, setting)
        for shots in levels(plan):
            found.append(_omnibus(plan, scores, shots))
            found += _corrected([_across(plan, scores, method, shots) for method in others(plan)])
        for dataset in scores.datasets:
            found += _within_dataset(plan, scores, rows, dataset)
    return found


def summary_line(found: list[Comparison]) -> str:
    """For the terminal: how many tests, and how many of them mark something."""
    tests = [one for one in found if one.scope in ("across", "within")]
    return f"{len(tests)} comparisons with the control, {sum(bool(one.mark) for one in tests)} of them significant"
