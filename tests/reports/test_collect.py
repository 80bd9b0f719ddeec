"""records.csv against the runs it was made from."""

import json
from pathlib import Path

import pytest

from reports import collect, rows
from reports.cells import AVERAGE, Scores, Setting, level_name, levels, settings
from rmt.plan import Plan
from rmt.records import BadRecord
from tests.reports import synthetic
from tests.reports.synthetic import make_plan, write_results, write_run

SETTING = Setting("few_shot", "tiny_clip", "test")


def test_one_row_per_run_and_evaluation_set(full: Plan) -> None:
    found = collect.collect(full)
    assert len(full.identities()) == 6 * (1 + 4 * 2 * 3) == 150
    assert len(found) == 300
    assert {row["eval_set"] for row in found} == {"test", "val"}
    first = next(row for row in found if (row["method"], row["shots"], row["seed"]) == ("r_amt", 16, 3))
    assert first["dataset"] == "digits"
    assert first["correct"] == 27
    assert first["accuracy"] == 67.5
    assert first["tuning.masks_flipped"] == 24
    assert first["cost.seconds.tune"] == pytest.approx(4.3)
    assert first["hyperparameters"]["level"] == 0.3
    assert first["provenance.dirty"] is False


def test_csv_reads_back_exactly(full: Plan, tmp_path: Path) -> None:
    found = collect.collect(full)
    found[0]["accuracy"] = 100 / 3
    collect.write(tmp_path / "records.csv", found)
    assert collect.read(tmp_path / "records.csv", full) == found
    before = (tmp_path / "records.csv").read_bytes()
    collect.write(tmp_path / "records.csv", collect.read(tmp_path / "records.csv", full))
    assert (tmp_path / "records.csv").read_bytes() == before


def test_missing_runs(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], methods={"zero_shot": {}, "r_amt": {}})
    write_results(plan, lambda run: run.method == "r_amt" and run.shots == 16 and run.seed > 1)
    with pytest.raises(collect.MissingRuns) as raised:
        collect.collect(plan)
    first = tmp_path / "results/synthetic/runs/few_shot/tiny_clip/digits/r_amt/16shot/seed2"
    assert str(raised.value).startswith(f"2 of 7 planned runs have no record, the first is {first};")
    found = collect.collect(plan, partial=True)
    assert len(found) == 2 * 5
    assert [(run.shots, run.seed) for run in collect.missing_runs(plan, found)] == [(16, 2), (16, 3)]


def test_broken_record_is_not_a_missing_one(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], methods={"zero_shot": {}})
    folder = write_run(plan, plan.identities()[0])
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"identity": record["identity"] | {"dataset": "colors"}}))
    with pytest.raises(BadRecord, match=r"identity\.dataset: the folder says 'digits', the record 'colors'"):
        collect.collect(plan, partial=True)
    (folder / "record.json").write_text("{")
    with pytest.raises(BadRecord, match="not JSON"):
        collect.collect(plan, partial=True)


def test_unplanned_rows_are_left_out(full: Plan, tmp_path: Path) -> None:
    collect.write(tmp_path / "records.csv", collect.collect(full))
    fewer = make_plan(tmp_path, seeds=[1], shots=[16], methods={"zero_shot": {}, "r_amt": {}})
    assert len(collect.read(tmp_path / "records.csv", fewer)) == 6 * 2 * 2


def test_not_a_records_csv(full: Plan, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadRecord, match="column 'benchmark' is missing"):
        collect.read(tmp_path / "other.csv", full)
    (tmp_path / "typed.csv").write_text("n\nmany\n")
    with pytest.raises(BadRecord, match="line 2: column 'n': 'many' is not of kind int"):
        rows.read(tmp_path / "typed.csv", {"n": "int"})


def test_scores(full: Plan) -> None:
    found = collect.collect(full)
    assert settings(full) == [SETTING]
    scores = Scores(full, found, SETTING)
    cell = scores.cell("r_amt", "digits", 16)
    assert cell.accuracies == {1: 62.5, 2: 65.0, 3: 67.5}
    assert cell.mean == 65.0
    assert cell.spread == pytest.approx((2 * 2.5**2 / 3) ** 0.5)
    # Zero-shot is one run, shown at every number of shots.
    assert scores.cell("zero_shot", "digits", 2) is scores.cell("zero_shot", "digits", 16)
    assert scores.score("zero_shot", "digits", AVERAGE) == 35.0
    assert scores.score("r_amt", "digits", AVERAGE) == pytest.approx((50 + 65) / 2)
    # Levels 28 + (-2 .. 3) of 40: mean 28.5.
    assert scores.mean("r_amt", 16) == pytest.approx(100 * 28.5 / 40)


def test_incomplete_cells_are_not_averaged(full: Plan) -> None:
    found = [
        row
        for row in collect.collect(full)
        if (row["method"], row["dataset"], row["shots"], row["seed"]) != ("amt", "colors", 2, 3)
    ]
    scores = Scores(full, found, SETTING)
    assert not scores.cell("amt", "colors", 2).complete
    assert scores.score("amt", "colors", 2) is None
    assert scores.score("amt", "colors", AVERAGE) is None
    assert scores.mean("amt", 2) is None
    assert scores.mean("amt", 16) is not None
    assert list(scores.complete("amt", 2)) == synthetic.DATASETS[:-1]


def test_levels(full: Plan, tmp_path: Path) -> None:
    assert levels(full) == [2, 16, AVERAGE]
    assert levels(make_plan(tmp_path, shots=[16, 1])) == [1, 16, AVERAGE]
    assert levels(make_plan(tmp_path, shots=[4])) == [4]
    assert [level_name(shots) for shots in (1, 2, AVERAGE)] == ["1 shot", "2 shots", "average"]
