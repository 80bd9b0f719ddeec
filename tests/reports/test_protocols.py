"""base_to_new, domain_shift and cross_dataset: numbers counted by hand or by brute force from the synthetic runs."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reports import base_to_new, collect, cross_dataset, domain_shift, statistics
from reports.base_to_new import HarmonicMeans, harmonic_mean
from reports.cells import Scores, Setting, dataset_name, settings, taking_part
from reports.compare import compare, summary_line
from reports.comparisons import Comparison, Comparisons
from reports.cross_dataset import Counts, Transfer
from reports.domain_shift import Shifted
from reports.rows import Row
from rmt.plan import Plan
from rmt.records import BadRecord, Identity
from tests.reports.synthetic import GENERAL, IMAGES, make_plan, right_on, write_results, write_run

B = "tiny_clip"
TRANSFERRING = ["zero_shot", "clip_adapter", "coop", "amt", "r_amt", "coop+r_amt", "r_amt+coop"]
SHIFTS = ["imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r"]


@pytest.fixture(scope="module")
def rows(general: Plan) -> list[Row]:
    return collect.collect(general)


def cells(table: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, table
    return {line[0].strip("| "): [cell.strip("| ") for cell in line[1:]] for line in lines}


def accuracies(plan: Plan, protocol: str, dataset: str, method: str, shots: int, eval_set: str) -> dict[int, float]:
    """By seed, straight from the rule that made the runs."""
    few_shot = plan.methods[method].entry.few_shot
    runs = [
        Identity("synthetic", protocol, B, dataset, method, shots if few_shot else 0, seed)
        for seed in ([1, 2, 3] if few_shot else [0])
    ]
    return {run.seed: 100 * float(right_on(run, eval_set).mean()) for run in runs}


def test_settings_follow_the_plan(general: Plan) -> None:
    found = settings(general)
    by_protocol = {
        protocol: [one.eval_set for one in found if one.protocol == protocol]
        for protocol in general.config["protocols"]
    }
    assert by_protocol == {
        "few_shot": ["test"],
        "base_to_new": ["base", "new"],
        "domain_shift": ["test", *SHIFTS],
        "cross_dataset": ["test", "outlines", "displays", "imagenet", "digits"],
    }
    assert settings(general, "few_shot", "another") == []


def test_cells_follow_the_plan(general: Plan, rows: list[Row]) -> None:
    assert taking_part(general, "few_shot") == list(general.methods)
    for protocol in ("base_to_new", "cross_dataset"):
        assert taking_part(general, protocol) == TRANSFERRING
    scores = Scores(general, rows, Setting("cross_dataset", B, "outlines"))
    assert scores.datasets == ["digits"]  # outlines is no target of itself, and only two are trained on
    assert Scores(general, rows, Setting("cross_dataset", B, "imagenet")).datasets == ["digits", "outlines"]
    assert Scores(general, rows, Setting("domain_shift", B, "test")).datasets == ["imagenet"]
    assert "tip_adapter" not in scores.methods
    assert scores.others == [method for method in TRANSFERRING if method != "r_amt"]


def test_harmonic_mean() -> None:
    assert harmonic_mean(80.0, 60.0) == pytest.approx(68.5714286)
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert harmonic_mean(50.0, 0.0) == 0.0


def test_h_is_of_each_seed_and_then_averaged(general: Plan, rows: list[Row]) -> None:
    scores = HarmonicMeans(general, rows, B)
    # r_amt at 2 shots on digits: 22 - 2 and 15 + 2, one less or more by seed, of 40 and of 30 images.
    expected = {
        1: harmonic_mean(100 * 19 / 40, 100 * 16 / 30),
        2: harmonic_mean(100 * 20 / 40, 100 * 17 / 30),
        3: harmonic_mean(100 * 21 / 40, 100 * 18 / 30),
    }
    assert scores.by_seed("r_amt", "digits", 2) == pytest.approx(expected)
    assert scores.score("r_amt", "digits", 2) == pytest.approx(sum(expected.values()) / 3)
    # Zero-shot: one run, 14 of 40 and 18 of 30.
    assert scores.score("zero_shot", "digits", 16) == pytest.approx(2 * 35 * 60 / 95)
    for method, shots in itertools.product(TRANSFERRING, (2, 16)):
        by_dataset = []
        for dataset in general.config["datasets"]:
            base = accuracies(general, "base_to_new", dataset, method, shots, "base")
            new = accuracies(general, "base_to_new", dataset, method, shots, "new")
            by_dataset.append(np.mean([2 / (1 / base[seed] + 1 / new[seed]) for seed in base]))
        assert scores.mean(method, shots) == pytest.approx(np.mean(by_dataset))
    base, new = scores.base.mean("amt", 2), scores.new.mean("amt", 2)
    assert base is not None and new is not None
    assert scores.of_means("amt", 2) == pytest.approx(2 * base * new / (base + new))
    assert scores.of_means("amt", 2) != pytest.approx(scores.mean("amt", 2))


def brute_force_holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm step by step."""
    corrected, largest = {}, 0.0
    for place, method in enumerate(sorted(p_values, key=lambda method: p_values[method])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[method]))
        corrected[method] = largest
    return corrected


def test_tests_on_h(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    scores = HarmonicMeans(general, rows, B)
    tests = Comparisons(general_tests, scores.setting)
    differences = {
        method: [
            scores.score(method, dataset, 16) - scores.score("r_amt", dataset, 16)  # type: ignore[operator]
            for dataset in general.config["datasets"]
        ]
        for method in TRANSFERRING
        if method != "r_amt"
    }
    # r_amt+coop makes the same numbers as r_amt: all zero, p = 1.
    p_values = {
        method: stats.wilcoxon(np.round(values, 6), zero_method="pratt").pvalue if any(np.round(values, 6)) else 1.0
        for method, values in differences.items()
    }
    for method, corrected in brute_force_holm(p_values).items():
        one = tests.across(method, 16)
        assert one is not None
        assert one.mean_difference == pytest.approx(np.mean(differences[method]), abs=1e-6)
        assert (one.p, one.p_holm) == (pytest.approx(p_values[method]), pytest.approx(corrected))
        assert (one.n, one.family_size, one.verdict, one.control) == (4, 6, "n too small", "r_amt")
    omnibus = tests.omnibus(16)
    assert omnibus is not None and (omnibus.n, omnibus.family_size) == (4, 7)
    # Base and new are tested within each dataset only, and there is no family for the average over shots.
    mine = [one for one in general_tests if one.protocol == "base_to_new"]
    assert {(one.scope, one.eval_set) for one in mine} == {
        ("across", "harmonic_mean"), ("omnibus", "harmonic_mean"),
        ("within", "base"), ("within", "new"), ("diagnostic", "base"), ("diagnostic", "new"),
    }  # fmt: skip
    assert {one.shots for one in mine} == {2, 16}
    assert not any("tip_adapter" in one.method for one in mine)


def test_within_base_and_new(general_tests: list[Comparison]) -> None:
    new = Comparisons(general_tests, Setting("base_to_new", B, "new")).within("amt", "digits", 2)
    assert new is not None
    # 10 + 2 against 15 + 2 of 30 images, the same by seed: five images lost whole, two of the ends in part.
    assert (new.n, new.mean_difference, new.family_size) == (30, pytest.approx(-100 * 5 / 30), 6)
    differences = np.zeros(30)
    for seed in (1, 2, 3):
        runs = [Identity("synthetic", "base_to_new", B, "digits", method, 2, seed) for method in ("amt", "r_amt")]
        ours, theirs = (right_on(run, "new") for run in runs)
        differences += ours.astype(float) - theirs
    sizes = differences[differences != 0]
    extreme = sum(
        abs(np.dot(signs, np.abs(sizes))) >= abs(sizes.sum()) for signs in itertools.product((1, -1), repeat=len(sizes))
    )
    assert new.p == pytest.approx(extreme / 2 ** len(sizes), abs=0.02)
    base = Comparisons(general_tests, Setting("base_to_new", B, "base")).within("amt", "digits", 2)
    assert base is not None and (base.n, base.ties, base.p) == (40, 40, 1.0)
    assert base.family != new.family


def test_base_to_new_tables(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    scores = HarmonicMeans(general, rows, B)
    tests = Comparisons(general_tests, scores.setting)
    both = [
        Comparisons(general_tests, Setting(PROTOCOL, B, name))
        for PROTOCOL in ["base_to_new"]
        for name in ("base", "new")
    ]
    table = base_to_new.mean_table(scores, tests, 2)
    found = cells(table.table)
    assert found["Method"] == ["base", "new", "mean of H", "H of means"]
    # Zero-shot: 16 + (-2, 1, 0, 0) of 40; 16 - (-2, 1, 0, 0) of 30.
    assert found["Zero-shot CLIP"][:2] == ["39.4", "54.2"]
    assert found["Zero-shot CLIP"][3] == f"{harmonic_mean(39.375, 54.1667):.1f}"
    assert "Tip-Adapter" not in found
    assert "n = 4 datasets" in table.notes[0] and "H of means" in table.notes[0]
    assert "family of 6 comparisons" in table.notes[1] and "**n too small**" in table.notes[1]
    matrix = cells(base_to_new.matrix(scores, both, 2, "{dataset}.md").table)
    h = scores.score("amt", "digits", 2)
    mark = both[1].within("amt", "digits", 2)
    assert mark is not None
    assert matrix["AMT (no gradient dropout)"][0] == f"50.0 / 40.0{mark.mark}<br>H {h:.1f}"
    page = cells(base_to_new.dataset_table(scores, both, "digits").table)
    assert page["Method"] == ["base, 2 shots", "new", "H", "base, 16 shots", "new", "H"]
    assert page["R-AMT (control)"][:2] == ["50.0 ± 2.0", "56.7 ± 2.7"]
    assert page["Zero-shot CLIP"][:3] == ["35.0", "60.0", "44.2"]


def test_base_to_new_with_missing_runs(general: Plan, rows: list[Row]) -> None:
    kept = [
        row
        for row in rows
        if (row["protocol"], row["method"], row["dataset"], row["seed"]) != ("base_to_new", "coop", "outlines", 2)
    ]
    scores = HarmonicMeans(general, kept, B)
    assert scores.score("coop", "outlines", 2) is None and scores.mean("coop", 2) is None
    tests = Comparisons([], scores.setting)
    assert cells(base_to_new.mean_table(scores, tests, 2).table)["CoOp"] == ["missing (3/4)"] * 4
    assert cells(base_to_new.matrix(scores, [tests, tests], 2, "").table)["CoOp"][1] == "missing"
    page = cells(base_to_new.dataset_table(scores, [tests, tests], "outlines").table)
    assert all(cell.endswith("(2/3 seeds)") for cell in page["CoOp"])


def test_shifted(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    scores = Shifted(general, rows, B)
    assert scores.datasets == ["imagenet"] and list(scores.sets("imagenet")) == SHIFTS
    # 15 of 40 on every shifted set, 28 of 40 on the source.
    assert scores.score("r_amt", "imagenet", 16) == pytest.approx(37.5)
    table = domain_shift.source_table(scores, general_tests, "imagenet", 16)
    found = cells(table.table)
    assert found["Method"][0] == "ImageNet" and found["Method"][-2:] == ["mean of shifted", "less the source"]
    assert found["R-AMT (control)"][1:] == ["37.5"] * 5 + ["−32.5"]
    assert found["Zero-shot CLIP"][1:4] == ["40.0"] * 3 and found["Zero-shot CLIP"][-1] == "0.0"
    assert found["Tip-Adapter"][-2] == "**45.0**"  # bound to its classes, which here are those of the shifted sets
    assert "family of 7 comparisons per test set" in table.notes[1]
    # Nothing across one dataset; within, a family per test set and number of shots.
    mine = [one for one in general_tests if one.protocol == "domain_shift"]
    assert {one.scope for one in mine} == {"within", "diagnostic"}
    assert len({one.family for one in mine if one.scope == "within"}) == 5 * 2
    matrix = cells(domain_shift.within_table(scores, general_tests, "imagenet", 16).table)
    assert matrix["AMT (no gradient dropout)"][1].startswith("−12.5")
    assert domain_shift.findings(scores)[1] == (
        "At 16 shots **Tip-Adapter** has the highest mean over the shifted sets, 45.0 %, −20.0 points from its source; "
        "the control R-AMT has 37.5 %, −32.5 points from its source."
    )


def pairs() -> Iterator[tuple[str, str]]:
    for source in ("digits", "outlines"):
        for target in GENERAL["datasets"]:
            if target != source:
                yield source, target


def test_transfer_by_brute_force(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    scores = Transfer(general, rows, B)
    assert scores.pairs() == list(pairs())
    tests = Comparisons(general_tests, scores.setting)
    for method, shots in itertools.product(TRANSFERRING, (2, 16)):
        by_target: dict[str, list[float]] = {}
        for source, target in pairs():
            mine = accuracies(general, "cross_dataset", source, method, shots, target)
            zero = accuracies(general, "cross_dataset", source, "zero_shot", shots, target)
            gain = float(np.mean(list(mine.values()))) - zero[0]
            assert scores.gain(method, source, target, shots) == pytest.approx(gain)
            by_target.setdefault(target, []).append(gain)
        one = tests.get("transfer", method, "", shots)
        if method == "zero_shot":
            assert one is None
            continue
        assert one is not None
        means = [float(np.mean(values)) for values in by_target.values()]
        assert (one.n, one.family_size, one.control) == (4, 6, "zero_shot")
        assert one.mean_difference == pytest.approx(np.mean(means), abs=1e-6)
        against = tests.across(method, shots)
        assert (against is None) == (method == "r_amt")
    # By hand: amt is right on 10 + shift of the target where zero-shot has 16 + shift, everywhere.
    assert scores.gain("amt", "digits", "outlines", 2) == pytest.approx(-15.0)
    assert scores.counts(cross_dataset.transfer_tests(general_tests, scores), "amt", 2)[:3] == (0, 0, 6)
    assert scores.counts([], "clip_adapter", 2) == Counts(6, 0, 0, 0, 0)
    # On the source itself: 22 - 2 against 16 - 2 of 40.
    assert scores.gain("r_amt", "digits", "digits", 2) == pytest.approx(15.0)


def test_transfer_within_a_pair(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    tests = Comparisons(general_tests, Setting("cross_dataset", B, "displays"))
    one = tests.get("transfer", "amt", "digits", 16)
    assert one is not None
    # Six images of 40 lost by every seed, but for the ends: 15, 16, 17 against 10 -+ 1.
    differences = sum(
        right_on(Identity("synthetic", "cross_dataset", B, "digits", "amt", 16, seed), "displays").astype(int)
        - right_on(Identity("synthetic", "cross_dataset", B, "digits", "zero_shot", 0, 0), "displays")
        for seed in (1, 2, 3)
    )
    assert one.mean_difference == pytest.approx(100 * differences.sum() / 3 / IMAGES)
    random = statistics.generator("cross_dataset-tiny_clip-displays/transfer/digits/16shot", "amt", "zero_shot")
    interval = statistics.percentile_interval(differences, 2000, random)
    assert one.low == pytest.approx(interval.low * 100 / 3)
    assert (one.n, one.family_size, one.control) == (40, 6, "zero_shot")
    assert {one.mark for one in general_tests if one.scope == "transfer"} <= {"", "↑", "↓"}


def test_cross_dataset_tables(general: Plan, rows: list[Row], general_tests: list[Comparison]) -> None:
    scores = Transfer(general, rows, B)
    table = cross_dataset.summary(scores, general_tests, 2)
    found = cells(table.table)
    # Sources: 22 + (-2, 1) of 40. Others: 15 + (-2 digits, 1 outlines, 0, 0).
    assert found["R-AMT (control)"][:3] == ["**53.8**", "36.9", "−2.5"]
    assert found["R-AMT (control)"][4].startswith("0 / 0 / 6 (0 ↑, ")
    assert found["Zero-shot CLIP"] == ["38.8", "39.4", "–", "–", "–"]
    assert found["CLIP-Adapter"][1:3] == ["**41.9**", "+2.5"]
    assert "trained and tested on Digits and Outlines, one by one, and averaged" in table.notes[0]
    assert "the target is the unit (n = 4), seeds averaged first, and sources, because runs" in table.notes[2]
    assert cross_dataset.shown_methods(scores) == ["amt", "r_amt", "r_amt+coop"]
    matrix = cells(cross_dataset.matrix(scores, general_tests, "amt", 2).table)
    assert matrix["Trained on"] == [*map(dataset_name, GENERAL["datasets"]), "mean of others"]
    values = [re.sub("[↑↓]", "", cell) for cell in matrix["Digits"]]
    assert values == ["*+15.0*", "−15.0", "−15.0", "−15.0", "−15.0"]
    assert [re.sub("[↑↓]", "", cell) for cell in matrix["mean"]] == ["−15.0"] * 5
    page = cells(cross_dataset.source_table(scores, general_tests, "digits", 2).table)
    assert page["AMT (no gradient dropout)"][0].startswith("−15.0")
    said = cross_dataset.findings(scores, general_tests)
    assert said[0].startswith(
        "At 2 shots, on datasets that it was not trained on, **R-AMT** is −2.5 points from zero-shot on average: above "
        "it on 0, below it on 6 of 6 pairs of a source and a target (0 and "
    )
    assert said[0].endswith("; the others range from CLIP-Adapter (+2.5) to AMT (no gradient dropout) (−15.0).")


def test_one_source_has_a_row_per_method(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, **GENERAL | {"protocols": ["cross_dataset"], "sources": ["digits"], "shots": [2]})
    write_results(plan)
    found = collect.collect(plan)
    scores, tests = Transfer(plan, found, B), compare(plan, found)
    assert scores.datasets == ["outlines", "displays", "imagenet"]
    table = cells(cross_dataset.row_table(scores, tests, 2).table)
    assert [re.sub("[↑↓]", "", cell) for cell in table["CoOp"]] == ["*−10.0*", "−10.0", "−10.0", "−10.0", "−10.0"]
    assert "Zero-shot CLIP" not in table


def test_a_missing_run_is_missing_in_every_target_mean(general: Plan, rows: list[Row]) -> None:
    kept = [
        row
        for row in rows
        if (row["protocol"], row["method"], row["dataset"], row["seed"]) != ("cross_dataset", "amt", "digits", 2)
    ]
    scores = Transfer(general, kept, B)
    # Digits as a target is asked of outlines only, whose runs are there.
    assert list(scores.complete("amt", 2)) == ["digits"]
    assert scores.gain("amt", "digits", "outlines", 2) is None
    tests = compare(general, kept)
    found = cells(cross_dataset.summary(scores, tests, 2).table)["AMT (no gradient dropout)"]
    assert found[:2] == ["missing", "missing"]
    assert found[2] == "−15.0 (n = 1)"
    assert found[4].startswith("0 / 0 / 3 (")
    matrix = cells(cross_dataset.matrix(scores, tests, "amt", 2).table)
    assert matrix["Digits"] == ["missing"] * 5 and matrix["mean"][-1] == "missing"


def test_without_zero_shot_nothing_is_said_of_forgetting(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, **GENERAL | {"protocols": ["cross_dataset"], "methods": {"amt": {}, "r_amt": {}}})
    write_results(plan)
    found = collect.collect(plan)
    tests = compare(plan, found)
    assert {one.scope for one in tests} == {"across", "omnibus"}
    scores = Transfer(plan, found, B)
    assert scores.gain("amt", "digits", "outlines", 2) is None
    assert cross_dataset.findings(scores, tests) == []
    assert "Zero-shot is not among the methods" in cross_dataset.summary(scores, tests, 2).notes[-1]


def test_a_control_that_is_bound_to_its_classes(tmp_path: Path) -> None:
    methods = {label: {} for label in ("zero_shot", "tip_adapter", "r_amt")}
    plan = make_plan(tmp_path, **GENERAL | {"methods": methods, "control": "tip_adapter", "shots": [2]})
    write_results(plan)
    found = collect.collect(plan)
    tests = compare(plan, found)
    scores = HarmonicMeans(plan, found, B)
    assert not scores.has_control and scores.others == []
    against_control = {one.protocol for one in tests if one.scope in ("across", "within")}
    assert against_control == {"few_shot", "domain_shift"}
    assert {one.method for one in tests if one.scope == "transfer"} == {"r_amt"}


def test_predictions_of_every_evaluation_set_must_fit(tmp_path: Path) -> None:
    changes = {"protocols": ["base_to_new"], "datasets": ["digits"], "shots": [2]}
    plan = make_plan(tmp_path, **GENERAL | changes | {"methods": {"zero_shot": {}, "r_amt": {}}, "sources": None})
    write_results(plan)
    rows = collect.collect(plan)
    run = plan.identities("r_amt")[0]
    write_run(plan, run, {"new": np.ones(30, dtype=bool)})
    with pytest.raises(BadRecord, match="30 of 30 predictions of 'new' are right, the record says 16"):
        compare(plan, rows)


def test_two_sources_with_shifts_are_tested_across(tmp_path: Path) -> None:
    changes = {"protocols": ["domain_shift"], "datasets": ["letters", "imagenet"], "sources": None, "shots": [2]}
    plan = make_plan(tmp_path, **GENERAL | changes)
    write_results(plan)
    rows = collect.collect(plan)
    tests, scores = compare(plan, rows), Shifted(plan, rows, B)
    assert scores.datasets == ["letters", "imagenet"] and not set(scores.sets("letters")) & set(SHIFTS)
    one = Comparisons(tests, scores.setting).across("amt", 2)
    assert one is not None and (one.n, one.mean_difference) == (2, pytest.approx(-12.5))
    found = cells(domain_shift.mean_table(scores, Comparisons(tests, scores.setting), 2).table)
    # 22 + (-1, 0) of 40 on the sources, 15 on every shifted set.
    assert found["R-AMT (control)"] == ["**53.8**", "37.5", "−16.2"]


def test_summary_line(general_tests: list[Comparison], full_tests: list[Comparison]) -> None:
    assert re.fullmatch(r"\d+ comparisons with the control, \d+ of them significant", summary_line(full_tests))
    others = sum(one.scope in ("transfer", "stack_method", "stack_below") for one in general_tests)
    assert f"; {others} others, " in summary_line(general_tests)
