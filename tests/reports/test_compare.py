"""comparisons.csv against numbers counted by hand from the synthetic runs."""

import math
from pathlib import Path

import numpy as np
import pandas
import pytest

from reports import collect, comparisons, statistics
from reports.cells import AVERAGE, Setting
from reports.compare import compare
from reports.comparisons import Comparison, Comparisons
from rmt.plan import Plan
from rmt.records import BadRecord, Identity
from tests.reports.synthetic import DATASETS, IMAGES, make_plan, right, write_results, write_run

SETTING = Setting("few_shot", "tiny_clip", "test")


@pytest.fixture(scope="module")
def found(full_tests: list[Comparison]) -> list[Comparison]:
    return full_tests


@pytest.fixture(scope="module")
def tests(found: list[Comparison]) -> Comparisons:
    return Comparisons(found, SETTING)


def test_one_row_per_test(found: list[Comparison]) -> None:
    count = {scope: sum(one.scope == scope for one in found) for scope in ("omnibus", "across", "within", "diagnostic")}
    # 2 shots + average; 4 methods; 6 datasets; 3 seeds.
    assert count == {"omnibus": 3, "across": 3 * 4, "within": 6 * 2 * 4, "diagnostic": 6 * 2 * 4 * 3}
    assert len({(one.scope, one.dataset, one.shots, one.seed, one.method) for one in found}) == len(found)
    assert {one.control for one in found} == {"r_amt"}
    assert {one.eval_set for one in found} == {"test"}
    assert not any(one.method == "r_amt" for one in found)


def test_families_are_declared(found: list[Comparison]) -> None:
    across = {one.family for one in found if one.scope == "across"}
    prefix = "few_shot-tiny_clip-test/across"
    assert across == {f"{prefix}/2shot", f"{prefix}/16shot", f"{prefix}/average"}
    within = {one.family for one in found if one.scope == "within"}
    assert len(within) == 12
    assert "few_shot-tiny_clip-test/within/digits/2shot" in within
    assert {one.family_size for one in found if one.scope in ("across", "within")} == {4}


def test_across(tests: Comparisons) -> None:
    probe = tests.across("linear_probe", 16)
    assert probe is not None
    # Level 30 against 28 of 40 images on every dataset.
    assert probe.mean_difference == pytest.approx(5.0)
    assert (probe.n, probe.wins, probe.ties, probe.losses, probe.effect) == (6, 6, 0, 0, 1.0)
    assert probe.p == probe.smallest_p == 0.03125
    assert probe.p_holm == pytest.approx(0.125)
    assert probe.verdict == "n too small"
    assert math.isnan(probe.low)  # constant differences
    zero = tests.across("zero_shot", AVERAGE)
    assert zero is not None
    # (16 - 22) and (16 - 28) of 40, averaged.
    assert zero.mean_difference == pytest.approx(100 * -9 / 40)
    equal = tests.across("amt", 2)
    assert equal is not None
    assert (equal.p, equal.ties, equal.verdict) == (1.0, 6, "n too small")


def test_one_comparison_needs_six_datasets_only(pair_tests: list[Comparison]) -> None:
    across = Comparisons(pair_tests, SETTING).across("coop", 2)
    assert across is not None
    assert (across.n, across.family_size, across.p_holm, across.verdict) == (6, 1, 0.03125, "worse")
    assert across.mark == "‡"


def test_within_by_hand(tests: Comparisons) -> None:
    one = tests.within("linear_probe", "digits", 16)
    assert one is not None
    # Right are the first 27, 28, 29 images against the first 25, 26, 27: by image 1, 2, 2, 1 of 3 seeds more.
    differences = np.zeros(IMAGES, dtype=np.int64)
    differences[[25, 26, 27, 28]] = [1, 2, 2, 1]
    assert one.mean_difference == pytest.approx(100 * 6 / 3 / IMAGES)
    assert (one.n, one.wins, one.ties, one.losses, one.seeds) == (40, 4, 36, 0, "1 2 3")
    assert one.statistic == pytest.approx(one.mean_difference)
    # 16 sign patterns of four images, two of them extreme.
    assert one.p == pytest.approx(2 / 16, abs=0.03)
    random = statistics.generator("few_shot-tiny_clip-test/within/digits/16shot", "linear_probe", "r_amt")
    interval = statistics.percentile_interval(differences, 2000, random)
    assert (one.low, one.high) == (pytest.approx(interval.low * 100 / 3), pytest.approx(interval.high * 100 / 3))
    assert one.verdict == "undecided"


def test_within_a_clear_difference(tests: Comparisons) -> None:
    one = tests.within("zero_shot", "digits", 16)
    assert one is not None
    assert one.seeds == "1 2 3"
    assert one.mean_difference == pytest.approx(100 * (14 - 26) / 40)
    assert (one.wins, one.ties, one.losses) == (0, 27, 13)
    assert one.p < 0.005
    assert one.p_holm == pytest.approx(4 * one.p)
    assert (one.verdict, one.mark) == ("worse", "‡")


def test_mcnemar_rows(tests: Comparisons) -> None:
    rows = [one for one in tests.diagnostics if (one.dataset, one.shots, one.method) == ("digits", 16, "zero_shot")]
    assert [(one.seed, one.wins, one.losses) for one in rows] == [(1, 0, 11), (2, 0, 12), (3, 0, 13)]
    assert [one.p for one in rows] == pytest.approx([2 / 2**11, 2 / 2**12, 2 / 2**13])
    assert all(one.verdict == "" and math.isnan(one.p_holm) and not one.mark for one in rows)


def test_omnibus(tests: Comparisons) -> None:
    one = tests.omnibus(16)
    assert one is not None
    assert (one.n, one.family_size, one.verdict) == (6, 5, "differ")
    assert one.p == pytest.approx(120.0**-5)  # all six datasets agree on the order of five methods


def test_same_numbers_again(full: Plan, found: list[Comparison]) -> None:
    assert repr(compare(full, collect.collect(full))) == repr(found)


def test_csv_reads_back_exactly(found: list[Comparison], tmp_path: Path) -> None:
    comparisons.write(tmp_path / "comparisons.csv", found)
    assert repr(comparisons.read(tmp_path / "comparisons.csv")) == repr(found)


def test_missing_runs_are_complete_cases(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)

    def left_out(run: Identity) -> bool:
        lost_seed = (run.method, run.dataset, run.shots, run.seed) == ("amt", "digits", 2, 1)
        lost_control = (run.method, run.dataset, run.shots) == ("r_amt", "colors", 16)
        return lost_seed or lost_control or run.method == "tip_adapter"

    write_results(plan, left_out)
    tests = Comparisons(compare(plan, collect.collect(plan, partial=True)), SETTING)
    amt = tests.across("amt", 2)
    assert amt is not None
    assert (amt.n, amt.smallest_p) == (5, 0.0625)
    tip = tests.across("tip_adapter", 2)
    assert tip is not None
    assert (tip.n, tip.verdict, tip.family_size) == (0, "missing", 3)
    assert math.isnan(tip.p)
    probe, average = tests.across("linear_probe", 16), tests.across("linear_probe", AVERAGE)
    assert probe is not None and average is not None
    assert (probe.n, average.n, probe.family_size) == (5, 5, 3)
    # Within: only the seeds that both have; nothing where the control is missing.
    within = tests.within("amt", "digits", 2)
    assert within is not None
    assert (within.n, within.seeds, within.family_size) == (40, "2 3", 3)
    lost = tests.within("amt", "colors", 16)
    assert lost is not None
    assert (lost.n, lost.verdict, lost.family_size) == (0, "missing", 0)
    omnibus = tests.omnibus(16)
    assert omnibus is not None
    assert (omnibus.n, omnibus.family_size) == (5, 4)


def test_few_resamples_refuse_to_mark(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], shots=[16], resamples=100, methods=dict.fromkeys(
        ("zero_shot", "linear_probe", "tip_adapter", "amt", "coop", "r_amt", "r_amt_released")))  # fmt: skip
    for run in plan.identities():
        write_run(plan, run, right(run) if run.method != "r_amt_released" else np.zeros(40, dtype=bool))
    one = Comparisons(compare(plan, collect.collect(plan)), SETTING).within("zero_shot", "digits", 16)
    assert one is not None
    assert one.smallest_p == 1 / 101
    assert one.family_size == 6
    assert one.verdict == "n too small"


def test_control_without_shots(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], shots=[16], control="zero_shot")
    write_results(plan)
    one = Comparisons(compare(plan, collect.collect(plan)), SETTING).within("r_amt", "digits", 16)
    assert one is not None
    assert one.mean_difference == pytest.approx(100 * (26 - 14) / 40)
    assert (one.seeds, one.verdict) == ("1 2 3", "better")


def test_predictions_must_fit_the_record(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], shots=[16], methods={"zero_shot": {}, "r_amt": {}})
    write_results(plan)
    rows = collect.collect(plan)
    path = tmp_path / "results/synthetic/runs/few_shot/tiny_clip/digits/r_amt/16shot/seed2/predictions.parquet"
    frame = pandas.read_parquet(path)
    flipped = frame.assign(predicted=frame["label"])
    flipped.to_parquet(path)
    with pytest.raises(BadRecord, match=r"seed2.*40 of 40 predictions of 'test' are right, the record says 26"):
        compare(plan, rows)
    frame.assign(path=frame["path"].str.replace("digits", "others")).to_parquet(path)
    with pytest.raises(BadRecord, match="has other images or labels than in the other runs on digits"):
        compare(plan, rows)
    test = frame["eval_set"] == "test"
    frame.assign(path=frame["path"].mask(test, "same.png")).to_parquet(path)
    with pytest.raises(BadRecord, match="an image occurs twice"):
        compare(plan, rows)
    path.write_text("no table")
    with pytest.raises(BadRecord, match="not a table of predictions"):
        compare(plan, rows)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        compare(plan, rows)


def test_stored_categories_are_read(tmp_path: Path) -> None:
    """Runs may store names as dictionary-encoded columns."""
    plan = make_plan(tmp_path, datasets=["digits"], shots=[16], methods={"zero_shot": {}, "r_amt": {}})
    write_results(plan)
    rows = collect.collect(plan)
    plain = compare(plan, rows)
    for run in plan.identities():
        path = run.folder(tmp_path / "results") / "predictions.parquet"
        frame = pandas.read_parquet(path)
        frame.astype({"eval_set": "category", "path": "category"}).to_parquet(path)
    assert repr(compare(plan, rows)) == repr(plain)


def test_datasets_of_the_fixture_differ() -> None:
    counts = {right(Identity("b", "p", "k", name, "r_amt", 2, 1)).sum() for name in DATASETS}
    assert len(counts) == 6
