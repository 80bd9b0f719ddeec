"""Runs on disk: what a failed, killed or repeated job leaves behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rmt import evaluate, fit, records
from rmt.data import read_sample
from rmt.methods import mask_tuning
from tests import toy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    return toy.make(tmp_path, shots=(2,), seeds=(1, 2, 3))


def test_a_loss_that_is_not_finite_stops_with_its_step_and_leaves_no_record(folder, capsys) -> None:
    wild = {"initial_context": "prompt", "learning_rate": 1e30, "warmup_learning_rate": 1e30, "epochs": 3}
    assert toy.fit(folder, "coop", **wild) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "coop/2shot/seed1" in error and "the loss is" in error and "at step 2" in error
    assert not list((folder / "results").rglob("record.json"))


def test_a_corrupt_image_is_named(folder, capsys) -> None:
    victim = folder / "images" / "one" / "00.png"
    for path in (folder / "images" / "one").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert toy.encode(folder) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(victim.parent) in error and "cannot be decoded" in error and "replace the file" in error


def test_a_job_that_failed_half_way_takes_up_its_finished_seeds(folder, monkeypatch, capsys) -> None:
    seeds: list[int] = []
    honest = mask_tuning.tune

    def broken_at_seed_two(task):
        seeds.append(task.shots.seed)
        if task.shots.seed == 2 and len(seeds) == 2:
            raise mask_tuning.train.TrainingFailed("the loss is nan at step 3")
        return honest(task)

    monkeypatch.setattr(mask_tuning, "tune", broken_at_seed_two)
    settings = {"learning_rate": 1e-3, "epochs": 2, "minimum_travel": 0.0}
    assert toy.fit(folder, "r_amt", **settings) == 2
    first = toy.run_folder(folder, "r_amt", 2, 1)
    assert (first / "record.json").exists()
    before = (first / "record.json").read_text()
    for name in records.FILES:  # as Snakemake does with the outputs of a failed job
        (first / name).unlink()
    assert toy.fit(folder, "r_amt", **settings) == 0
    assert seeds == [1, 2, 2, 3]
    assert (first / "record.json").read_text() == before
    assert "taken up from an earlier, interrupted job" in capsys.readouterr().out
    assert not any((folder / "results" / "toy" / "unfinished").iterdir())

    # With another setting nothing is taken up.
    assert toy.fit(folder, "r_amt", **(settings | {"epochs": 3})) == 0
    assert seeds == [1, 2, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("method", ["r_amt", "tip_adapter"])
def test_what_is_kept_belongs_to_its_evaluation_sets(folder, method: str) -> None:
    """A run that was kept before another test set was added would lack that set's answers."""
    assert toy.encode(folder) == 0
    sample = read_sample(Path(toy.samples(folder)[0]))
    job = toy.job(folder, method)
    own = job.features_file if job.reads_features else job.pack
    assert own is not None
    keys = {fit._key(replace(job, targets=targets), sample) for targets in ([], [own], [own, own])}
    assert len(keys) == 3


def test_a_command_of_a_record_can_be_pasted(tmp_path) -> None:
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    line = fit._pasted(["printf", "%s\\n", "~/my data/one", "it's", "a b"])
    printed = subprocess.run(["sh", "-c", line], env=home, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [f"{tmp_path}/my data/one", "it's", "a b"]


def test_a_killed_run_leaves_no_record(folder) -> None:
    command = [sys.executable, "-m", "rmt", "fit", "--benchmark", "toy", "--backbone", "tiny_clip", "--method", "r_amt"]
    command += ["--overrides", '{"epochs": 100000}', "--results", f"{folder}/results", "--device", "cpu"]
    command += ["--pack", f"{folder}/test.npy", "--images", f"{folder}/images", "--samples", *toy.samples(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(8)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    assert not list(folder.rglob("record.json"))


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path) -> None:
    target = tmp_path / "record.json"
    records.write_json(target, {"old": 1})
    with pytest.raises(ValueError):
        records.write_json(target, {"new": float("nan")})
    assert target.read_text() == '{\n  "old": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_bad_record_is_refused_by_field(folder) -> None:
    assert toy.fit(folder, "r_amt", epochs=1, minimum_travel=0.0, chosen=[toy.samples(folder)[0]]) == 0
    run = toy.run_folder(folder, "r_amt", 2, 1)
    record = records.read(run)
    for path, value, words in (
        (("metrics", "test", "accuracy"), 101, "metrics.test.accuracy"),
        (("identity", "shots"), "two", "identity.shots"),
        (("surprise",), 1, "surprise"),
        (("schema",), 1, "another version .schema 1, this one reads 2.; delete the run's folder"),
    ):
        bad = records.json.loads(records.json.dumps(record))
        inner = bad
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(records.BadRecord, match=words):
            records.check(bad)
    (run / "record.json").write_text("{")
    with pytest.raises(records.BadRecord, match="delete the file and run again"):
        records.read(run)


def test_metrics_of_known_predictions() -> None:
    import torch

    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 0.0]])
    table = evaluate.predictions("test", ["a", "b", "c", "d"], torch.tensor([0, 1, 1, 1]), logits)
    found = evaluate.metrics(table)
    sure = 1 / (1 + 2.718281828459045**-2)
    assert found["correct"] == 2 and found["accuracy"] == 50.0
    assert found["class_accuracy"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    frame: pd.DataFrame = table.to_pandas()
    assert frame.margin.tolist() == pytest.approx([2, 2, -2, 0])
    assert frame.probability.tolist() == pytest.approx([sure, sure, 1 - sure, 0.5])
    # 15 bins: three images at confidence .881 (two right), one at .5 (wrong).
    expected = 100 * (abs(2 - 3 * sure) + abs(0 - 0.5)) / 4
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="image b"):
        evaluate.predictions("test", ["a", "b"], torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]))
