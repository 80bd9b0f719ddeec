"""Stacks against both of their parts: families, numbers and tables."""

from pathlib import Path

import numpy as np
import pytest

from reports import collect, statistics, synergy
from reports.cells import AVERAGE, Scores, Setting
from reports.compare import compare
from reports.comparisons import Comparison, Comparisons
from reports.synergy import SCOPES, Stack, stacks
from rmt.plan import Plan
from rmt.records import Identity
from tests.reports.synthetic import DATASETS, IMAGES, make_plan, right, write_run

SETTING = Setting("few_shot", "tiny_clip", "test")
MORE = {"coop+r_amt": 18, "r_amt+coop": 3}
"""Images more that a stack gets right than the method that it stacks."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two stacks on six datasets: family of two, so that six datasets cannot carry a mark, and one run is missing."""
    methods: dict[str, dict] = {label: {} for label in ("zero_shot", "coop", "r_amt", "coop+r_amt")}
    methods["r_amt+coop"] = {"epochs": 3}
    plan = make_plan(tmp_path_factory.mktemp("stacks"), methods=methods)
    for run in plan.identities():
        if (run.method, run.dataset, run.shots, run.seed) == ("r_amt+coop", "digits", 16, 2):
            continue
        more = MORE.get(run.method, 0)
        write_run(plan, run, np.arange(IMAGES) < right(run).sum() + more)
    return plan


@pytest.fixture(scope="module")
def scores(plan: Plan) -> Scores:
    return Scores(plan, collect.collect(plan, partial=True), SETTING)


@pytest.fixture(scope="module")
def found(plan: Plan) -> list[Comparison]:
    return compare(plan, collect.collect(plan, partial=True))


def test_stacks_say_their_order(plan: Plan, tmp_path: Path) -> None:
    assert stacks(plan) == [
        Stack("coop+r_amt", "coop", "r_amt", "tower below"),
        Stack("r_amt+coop", "r_amt", "coop", "prompts below"),
    ]
    # CoOp alone is not planned, or is another method under that label: nothing to compare with.
    assert stacks(make_plan(tmp_path, methods={"r_amt": {}, "coop+r_amt": {}})) == []
    other = {"coop": {"use": "linear_probe"}, "r_amt": {}, "coop+r_amt": {"use": "coop"}}
    assert stacks(make_plan(tmp_path, methods=other)) == []
    # A variant of CoOp on a variant of R-AMT.
    variants = {"c": {"use": "coop"}, "m": {"use": "amt"}, "c+m": {"use": "coop"}}
    assert stacks(make_plan(tmp_path, methods=variants)) == [Stack("c+m", "c", "m", "tower below")]


def test_families(found: list[Comparison]) -> None:
    mine = [one for one in found if one.scope in SCOPES]
    across = [one for one in mine if not one.dataset]
    assert len(across) == 2 * 2 * 3  # stacks, parts, levels with the average
    assert len(mine) - len(across) == 2 * 2 * 2 * len(DATASETS)
    assert len({one.family for one in across}) == 2 * 3
    assert {one.family_size for one in across} == {2}
    # They are no comparisons with the control, nor do they enlarge those families.
    assert {one.family_size for one in found if one.scope == "across"} == {4}


def test_across_by_hand(found: list[Comparison]) -> None:
    tests = Comparisons(found, SETTING)
    one = tests.get("stack_method", "coop+r_amt", "", 2)
    assert one is not None
    assert (one.control, one.n, one.wins) == ("coop", 6, 6)
    assert one.mean_difference == pytest.approx(100 * 18 / 40)
    assert (one.p, one.p_holm, one.verdict) == (0.03125, 0.0625, "n too small")
    # CoOp + 18 = 30 and 32 of 40 against R-AMT's 22 and 28.
    below = tests.get("stack_below", "coop+r_amt", "", AVERAGE)
    assert below is not None
    assert (below.control, below.mean_difference) == ("r_amt", pytest.approx(100 * (8 + 4) / 2 / 40))
    missing = tests.get("stack_method", "r_amt+coop", "", 16)
    assert missing is not None and missing.n == 5


def test_within_by_hand(found: list[Comparison]) -> None:
    one = Comparisons(found, SETTING).get("stack_below", "coop+r_amt", "letters", 16)
    assert one is not None
    # 14 + 18 - 1 against 28 - 1, one image less or more by seed: images 26 to 31 at 1, 2, 3, 3, 2, 1 seeds.
    differences = np.zeros(IMAGES, dtype=np.int64)
    differences[26:32] = [1, 2, 3, 3, 2, 1]
    assert one.mean_difference == pytest.approx(100 * differences.sum() / 3 / IMAGES)
    assert (one.n, one.wins, one.ties, one.losses, one.control) == (40, 6, 34, 0, "r_amt")
    random = statistics.generator("few_shot-tiny_clip-test/stack_below/letters/16shot", "coop+r_amt", "r_amt")
    interval = statistics.percentile_interval(differences, 2000, random)
    assert one.low == pytest.approx(interval.low * 100 / 3)
    # 64 sign patterns of six sizes; only all alike reach the sum.
    assert one.p == pytest.approx(2 / 64, abs=0.015)


def test_marks_where_the_sample_carries_them(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, methods={"coop": {}, "r_amt": {}, "coop+r_amt": {}}, shots=[2])
    for run in plan.identities():
        write_run(plan, run, np.arange(IMAGES) < right(run).sum() + MORE.get(run.method, 0))
    found = compare(plan, collect.collect(plan))
    scores, tests = Scores(plan, collect.collect(plan), SETTING), Comparisons(found, SETTING)
    rows = synergy.table(scores, tests).table.splitlines()
    # Constant differences have no interval; 2 / 2^6 = 0.031 is below 0.05 in a family of one.
    assert rows[2] == (
        "| CoOp + R-AMT | tower below | 2 shots | 31.2 | 76.2 | +45.0↑ | – | 0.031 | 56.2 | +20.0↑ | – | 0.031 |"
    )
    assert synergy.findings(scores, tests) == [
        "CoOp + R-AMT is above both of its parts on 6 of 6 datasets at 2 shots; across datasets significantly above "
        "CoOp and R-AMT at 2 shots."
    ]


def test_table(scores: Scores, found: list[Comparison]) -> None:
    table = synergy.table(scores, Comparisons(found, SETTING))
    lines = [line.strip("| ").split(" | ") for line in table.table.splitlines()]
    assert [line[:3] for line in lines[2:]] == [
        [stack, order, shots]
        for stack, order in (("CoOp + R-AMT", "tower below"), ("R-AMT on CoOp's prompts", "prompts below"))
        for shots in ("2 shots", "16 shots", "average")
    ]
    assert lines[3][3:6] == ["36.2", "81.2", "+45.0"]
    # The mean lacks a dataset, the paired difference leaves it out.
    assert lines[6][3:6] == ["71.2", "missing", "+7.5"]
    assert "family of all 2 stacks" in table.notes[1] and "n = 5–6 datasets" in table.notes[1]
    assert "**n too small**" in table.notes[1]
    assert table.notes[2].startswith("R-AMT on CoOp's prompts and R-AMT also differ in `epochs`")


def test_dataset_table(scores: Scores, found: list[Comparison]) -> None:
    table = synergy.dataset_table(scores, Comparisons(found, SETTING), "digits")
    lines = [line.strip("| ").split(" | ") for line in table.table.splitlines()]
    assert [line[:3] for line in lines[2:]] == [
        ["CoOp + R-AMT", "tower below", "CoOp"],
        ["CoOp + R-AMT", "tower below", "R-AMT"],
        ["R-AMT on CoOp's prompts", "prompts below", "R-AMT"],
        ["R-AMT on CoOp's prompts", "prompts below", "CoOp"],
    ]
    assert lines[2][3].startswith("+45.0↑<br><sub>[")
    assert "n = 40 test images" in table.notes[0] and "family of 2 stacks" in table.notes[0]


def test_masks_on_prompts_count_their_own_flips(plan: Plan) -> None:
    rows = collect.collect(plan, partial=True)
    run = Identity("synthetic", "few_shot", "tiny_clip", "letters", "r_amt+coop", 2, 1)
    for row in rows:
        if collect.identity_of(row) == run:
            row["tuning.masks_flipped"] = 0
    scores = Scores(plan, rows, SETTING)
    assert (scores.unflipped("r_amt+coop", 2), scores.unflipped("coop+r_amt", 2)) == (1, 0)
    for row in rows:
        if (row["method"], row["dataset"], row["shots"], row["seed"]) == ("r_amt", "letters", 2, 1):
            row["tuning.masks_flipped"] = 0
    assert Scores(plan, rows, SETTING).unflipped("coop+r_amt", 2) == 1
