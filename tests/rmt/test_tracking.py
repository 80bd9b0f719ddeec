"""Importing finished runs into MLflow: what arrives, that it arrives once, and what happens when it cannot."""

import contextlib
import csv
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from rmt import plan, records, tracking
from rmt.records import Identity

CURVE_STEPS = 90


def make_plan(results: Path, **changes: Any) -> plan.Plan:
    """A plan of one zero-shot, four feature-method and four mask-tuning runs."""
    config = {
        "benchmark": "demo",
        "datasets": ["digits"],
        "shots": [1, 16],
        "seeds": [1, 2],
        "methods": {"zero_shot": None, "tip_adapter_f": None, "r_amt": None},
        "results_folder": str(results),
    }
    return plan.check(config | changes)


def make_record(planned: plan.Plan, identity: Identity, accuracy: float = 61.5) -> dict[str, Any]:
    """A valid record whose figures are easy to recognise."""
    method = planned.methods[identity.method]
    tower = planned.methods[method.below] if method.below else None
    masks = method.entry.masks
    trained = method.entry.few_shot
    scores = {
        "images": 200,
        "correct": round(2 * accuracy),
        "accuracy": accuracy,
        "class_accuracy": accuracy - 0.5,
        "cross_entropy": 1.25,
        "calibration_error": 3.5,
    }
    record = {
        "schema": 2,
        "identity": identity.as_dict(),
        "method": {
            "use": method.use,
            "below": tower.label if tower else None,
            "label": planned.display(identity.method),
            "citation": method.entry.citation,
        },
        "task": {"classes": ["one", "two"], "template": "a photo of a {}."},
        "backbone": {
            "architecture": "tiny_clip",
            "pretrained": "rmt/weights/tiny_clip.safetensors",
            "checkpoint": None,
            "pixels": 32,
            "resize": "shortest",
        },
        "hyperparameters": method.hyperparameters(identity.dataset, identity.shots),
        "selection": {
            "rule": "val" if identity.method.startswith("tip") else "fixed",
            "checkpoint": "last" if trained else "none",
            "chosen": {"alpha": 1.17} if identity.method.startswith("tip") else {},
            "candidates": 1,
            "images": 40,
        },
        "metrics": {"test": scores, "val": scores | {"accuracy": accuracy + 5}},
        "tuning": {
            "optimisation_steps": CURVE_STEPS if trained else 0,
            "trainable_parameters": 4096 if trained else 0,
            "adapter_bytes": 512,
            "masks_total": 4096 if masks else None,
            "masks_flipped": (128 if identity.shots == 16 else 0) if masks else None,
            "masked_fraction": (0.03125 if identity.shots == 16 else 0.0) if masks else None,
        },
        "cost": {
            "seconds": {"prepare": 0.5, "tune": 12.0, "evaluate": 1.5},
            "images_per_second": 320.0 if trained else None,
            "peak_memory_bytes": 500_000_000,
            "started": "2026-03-01T10:00:00+01:00",
            "ended": "2026-03-01T10:00:14.250000+01:00",
        },
        "provenance": {
            "command": "",
            "below_sha256": None,
            "sample_sha256": "a" * 64,
            "split_sha256": "0123456789abcdef" * 4,
            "weights_sha256": "b" * 64,
            "commit": "c0ffee" * 6 + "c0ff",
            "dirty": False,
            "python": "3.11.2",
            "packages": {"torch": "2.13.0"},
            "device": "cpu",
            "threads": 1,
        },
    }
    records.check(record)
    return record


def write_run(planned: plan.Plan, identity: Identity, accuracy: float = 61.5) -> Path:
    """The files of a finished run that are imported."""
    folder = identity.folder(Path(planned.config["results_folder"]))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "masks_flipped"])
        for step in range(1, CURVE_STEPS + 1) if identity.shots else ():
            rows.writerow([step, 2.0 / step, step if step % 30 == 0 else ""])
    save_file({"masks": numpy.full(64, identity.seed, numpy.uint8)}, folder / "adapter.safetensors")
    records.write_json(folder / "record.json", make_record(planned, identity, accuracy))
    return folder


def client_of(summary: tracking.Summary) -> Any:
    """A client of the store that was filled."""
    import mlflow

    return mlflow.MlflowClient(tracking_uri=summary.uri)


def active_runs(summary: tracking.Summary) -> list[Any]:
    """All runs of the store that are not deleted."""
    return list(client_of(summary).search_runs(list(summary.experiments.values()), max_results=1000))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without experiments: most tests start from a copy, as making one takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.track(make_plan(database.parent), f"sqlite:///{database}", show_progress=False)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("delete from experiment_tags")
        connection.execute("delete from experiments where name != 'Default'")
    return database


@pytest.fixture
def unfilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> plan.Plan:
    """A plan whose nine runs have finished, in a folder with a blank; the working folder is another, empty one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    planned = make_plan(tmp_path / "my results")
    for identity in planned.identities():
        write_run(planned, identity)
    return planned


@pytest.fixture
def finished(unfilled: plan.Plan, tmp_path: Path, empty_store: Path) -> plan.Plan:
    """The same with an empty store."""
    shutil.copyfile(empty_store, tmp_path / "my results" / "mlflow.db")
    return unfilled


def imported(planned: plan.Plan, identity: Identity, store: Path) -> tracking.Summary:
    """The import of this one finished run into a copy of the store."""
    write_run(planned, identity)
    shutil.copyfile(store, Path(planned.config["results_folder"]) / "mlflow.db")
    uri = f"sqlite:///{planned.config['results_folder']}/mlflow.db"
    return tracking.track(planned, uri=uri, show_progress=False)


def cell(planned: plan.Plan, method: str, shots: int, seed: int) -> Identity:
    """One planned run."""
    return Identity("demo", "few_shot", "tiny_clip", "digits", method, shots, seed)


def folder_of(planned: plan.Plan, method: str, shots: int, seed: int) -> str:
    """The run's folder as the summary names it."""
    return cell(planned, method, shots, seed).folder(Path(planned.config["results_folder"])).as_posix()


def test_everything_arrives_in_the_default_store(unfilled: plan.Plan, tmp_path: Path) -> None:
    finished = unfilled
    summary = tracking.track(finished, show_progress=False)
    results = tmp_path / "my results"
    assert summary.uri == f"sqlite:///{results}/mlflow.db"
    assert (summary.imported, summary.already_there, summary.replaced, summary.without_record) == (9, 0, 0, 0)
    assert list(summary.runs) == [i.folder(results).as_posix() for i in finished.identities()]
    client = client_of(summary)
    experiments = [e.name for e in client.search_experiments() if e.name != "Default"]
    assert experiments == ["demo/few_shot"]
    runs = {run.info.run_id: run for run in active_runs(summary)}
    assert set(runs) == set(summary.runs.values())
    assert list(Path.cwd().iterdir()) == [], "MLflow wrote into the working folder"

    run = runs[summary.runs[folder_of(finished, "r_amt", 16, 2)]]
    assert run.info.run_name == "r_amt digits 16-shot seed 2"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1772355600000, 1772355614250)
    expected = {
        "benchmark": "demo", "protocol": "few_shot", "backbone": "tiny_clip", "dataset": "digits",
        "method": "r_amt", "method_label": "R-AMT", "shots": "16", "seed": "2", "selection": "fixed",
        "commit": "c0ffee" * 6 + "c0ff",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert "no_mask_flipped" not in run.data.tags
    assert "below" not in run.data.tags
    params = {"level": "0.3", "crop_scale": "[0.5, 1.0]", "shots": "16", "seed": "2", "dataset": "digits"}
    assert params.items() <= run.data.params.items()
    metrics = {
        "test/accuracy": 61.5, "test/class_accuracy": 61.0, "test/cross_entropy": 1.25,
        "test/calibration_error": 3.5, "val/accuracy": 66.5, "optimisation_steps": CURVE_STEPS, "masks_flipped": 128,
        "masked_fraction": 0.03125, "adapter_bytes": 512, "seconds_tune": 12.0, "images_per_second": 320.0,
        "curve/loss": 2.0 / CURVE_STEPS,
    }  # fmt: skip
    assert metrics.items() <= run.data.metrics.items()
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    assert run.inputs.dataset_inputs[0].dataset.digest == "01234567"


def test_curves_keep_their_steps_and_the_records_time(finished: plan.Plan) -> None:
    summary = tracking.track(finished, show_progress=False)
    client = client_of(summary)
    run = summary.runs[folder_of(finished, "r_amt", 16, 1)]
    loss = client.get_metric_history(run, "curve/loss")
    assert [(m.step, m.value) for m in loss] == [(step, 2.0 / step) for step in range(1, CURVE_STEPS + 1)]
    assert {m.timestamp for m in loss} == {1772355614250}
    flipped = client.get_metric_history(run, "curve/masks_flipped")
    assert [(m.step, m.value) for m in flipped] == [(30, 30), (60, 60), (90, 90)]
    untrained = client.get_run(summary.runs[folder_of(finished, "zero_shot", 0, 0)])
    assert untrained.info.run_name == "zero_shot digits"
    assert not [name for name in untrained.data.metrics if name.startswith("curve/")]
    assert "images_per_second" not in untrained.data.metrics


def test_tuning_that_did_nothing_is_tagged(finished: plan.Plan) -> None:
    summary = tracking.track(finished, show_progress=False)
    found = client_of(summary).search_runs(list(summary.experiments.values()), "tags.no_mask_flipped = 'true'")
    assert sorted(run.info.run_name for run in found) == [f"r_amt digits 1-shot seed {seed}" for seed in (1, 2)]


def test_artifacts_equal_the_files(finished: plan.Plan, tmp_path: Path) -> None:
    summary = tracking.track(finished, show_progress=False)
    for folder, run in summary.runs.items():
        stored = list((tmp_path / "my results" / "mlartifacts").rglob(f"{run}/artifacts"))
        assert len(stored) == 1
        assert sorted(path.name for path in stored[0].iterdir()) == sorted(tracking.ARTIFACTS)
        for name in tracking.ARTIFACTS:
            assert (stored[0] / name).read_bytes() == (Path(folder) / name).read_bytes()


def test_a_second_import_adds_nothing(finished: plan.Plan) -> None:
    first = tracking.track(finished, show_progress=False)
    folder = Path(folder_of(finished, "r_amt", 1, 1))
    record = records.read(folder)
    record["cost"]["seconds"]["tune"] = 99.0
    records.write_json(folder / "record.json", record)
    second = tracking.track(finished, show_progress=False)
    assert (second.imported, second.already_there, second.replaced) == (0, 9, 0)
    assert second.runs == first.runs
    assert len(active_runs(second)) == 9


def test_a_changed_record_replaces_its_run(finished: plan.Plan) -> None:
    first = tracking.track(finished, show_progress=False)
    folder = write_run(finished, cell(finished, "r_amt", 16, 1), accuracy=70.0).as_posix()
    second = tracking.track(finished, show_progress=False)
    assert (second.imported, second.already_there, second.replaced) == (0, 8, 1)
    assert [key for key in first.runs if first.runs[key] != second.runs[key]] == [folder]
    assert len(active_runs(second)) == 9
    client = client_of(second)
    assert client.get_run(second.runs[folder]).data.metrics["test/accuracy"] == 70.0
    assert client.get_run(first.runs[folder]).info.lifecycle_stage == "deleted"


def test_an_interrupted_import_is_redone(finished: plan.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        count = iter(range(100))

        def interrupted(*_: Any) -> None:
            if next(count) == 4:
                raise KeyboardInterrupt

        patch.setattr("mlflow.MlflowClient.log_inputs", interrupted)
        tracking.track(finished, show_progress=False)
    summary = tracking.track(finished, show_progress=False)
    assert (summary.imported, summary.already_there, summary.replaced) == (5, 4, 0)
    runs = active_runs(summary)
    assert len(runs) == 9
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_unfinished_runs_are_counted_and_imported_later(finished: plan.Plan) -> None:
    record = Path(folder_of(finished, "r_amt", 16, 1)) / "record.json"
    kept = record.read_bytes()
    record.unlink()
    summary = tracking.track(finished, show_progress=False)
    assert (summary.imported, summary.without_record) == (8, 1)
    assert summary.line().endswith(", 1 planned without a record")
    record.write_bytes(kept)
    summary = tracking.track(finished, show_progress=False)
    assert (summary.imported, summary.already_there, summary.without_record) == (1, 8, 0)


def test_a_deleted_experiment_comes_back_without_what_was_replaced(finished: plan.Plan) -> None:
    tracking.track(finished, show_progress=False)
    write_run(finished, cell(finished, "r_amt", 16, 1), accuracy=70.0)
    summary = tracking.track(finished, show_progress=False)
    client_of(summary).delete_experiment(summary.experiments["demo/few_shot"])
    again = tracking.track(finished, show_progress=False)
    assert again.runs == summary.runs
    assert len(active_runs(again)) == 9


def test_runs_of_others_in_the_experiment_stay(finished: plan.Plan) -> None:
    summary = tracking.track(finished, show_progress=False)
    own = client_of(summary).create_run(summary.experiments["demo/few_shot"]).info.run_id
    tracking.track(finished, show_progress=False)
    assert client_of(summary).get_run(own).info.lifecycle_stage == "active"


def test_a_stack_names_its_tower(tmp_path: Path, empty_store: Path) -> None:
    planned = make_plan(tmp_path, methods={"r_amt": None, "tip_adapter+r_amt": None})
    summary = imported(planned, cell(planned, "tip_adapter+r_amt", 16, 1), empty_store)
    run = active_runs(summary)[0]
    assert run.data.tags["below"] == "r_amt"
    assert run.data.tags["method_label"] == "Tip-Adapter + R-AMT"
    assert run.data.params["chosen/alpha"] == "1.17"


def test_a_variant_does_not_hide_behind_its_methods_label(tmp_path: Path, empty_store: Path) -> None:
    planned = make_plan(tmp_path, methods={"r_amt": None, "r_amt_half": {"use": "r_amt", "level": 0.5}})
    run = active_runs(imported(planned, cell(planned, "r_amt_half", 16, 1), empty_store))[0]
    assert run.data.tags["method_label"] == "R-AMT (r_amt_half)"
    assert run.data.params["level"] == "0.5"


def test_names_tell_backbones_apart_where_there_are_several(tmp_path: Path) -> None:
    one, two = make_plan(tmp_path), make_plan(tmp_path, backbones=["tiny_clip", "vit_b16"])
    assert tracking.run_name(cell(one, "r_amt", 16, 1), one) == "r_amt digits 16-shot seed 1"
    assert tracking.run_name(cell(two, "r_amt", 16, 1), two) == "r_amt digits 16-shot seed 1 tiny_clip"


def test_saved_views_are_made_once_and_then_the_users(finished: plan.Plan) -> None:
    summary = tracking.track(finished, show_progress=False)
    experiment = summary.experiments["demo/few_shot"]
    client = client_of(summary)
    found = client.get_experiment(experiment).tags
    views = {json.loads(value)["name"]: key for key, value in found.items() if "sharedViewState" in key}
    assert set(views) == {"Scores", "Seeds averaged"}
    state = json.loads(json.loads(found[views["Scores"]])["state"])
    metrics = active_runs(summary)[0].data.metrics
    assert {column.split("`")[1] for column in state["selectedColumns"]} - {"masked_fraction"} <= set(metrics)
    assert summary.pages["demo/few_shot"].endswith(f"viewStateShareKey={views['Scores'].rpartition('.')[2]}")
    client.set_experiment_tag(experiment, views["Scores"], "changed by somebody")
    client.set_experiment_tag(experiment, "mlflow.note.content", "outdated")
    tracking.track(finished, show_progress=False)
    after = client.get_experiment(experiment).tags
    assert after[views["Scores"]] == "changed by somebody"
    assert after["mlflow.note.content"] == found["mlflow.note.content"]


def test_long_curves_are_thinned_evenly(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n" + "".join(f"{step},{step / 2}\n" for step in range(1, 10_001)))
    points = tracking.curve(path)
    steps = [step for _, _, step in points]
    assert len(points) == tracking.CURVE_POINTS
    assert (steps[0], steps[-1]) == (1, 10_000)
    assert {after - before for before, after in itertools.pairwise(steps)} <= {101}
    assert points[7] == ("curve/loss", steps[7] / 2, steps[7])


def test_more_metrics_than_one_call_takes_all_arrive(finished: plan.Plan) -> None:
    folder = Path(folder_of(finished, "r_amt", 16, 1))
    columns = [f"column{i}" for i in range(12)]
    rows = [",".join(["step", *columns])] + [",".join(map(str, range(s, s + 13))) for s in range(100)]
    (folder / "curve.csv").write_text("\n".join(rows) + "\n")
    summary = tracking.track(finished, show_progress=False)
    for i, column in enumerate(columns):
        history = client_of(summary).get_metric_history(summary.runs[folder.as_posix()], f"curve/{column}")
        assert [(m.step, m.value) for m in history] == [(s, s + i + 1) for s in range(100)]


def test_summary_as_json(finished: plan.Plan, tmp_path: Path) -> None:
    summary = tracking.track(finished, show_progress=False)
    tracking.write_summary(summary, tmp_path / "tracked.json")
    assert json.loads((tmp_path / "tracked.json").read_text()) == asdict(summary)


def test_files_that_contradict_each_other(finished: plan.Plan) -> None:
    folder = Path(folder_of(finished, "r_amt", 16, 1))
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(tracking.TrackingError, match=r"adapter\.safetensors is missing"):
        tracking.track(finished, show_progress=False)
    other = Path(folder_of(finished, "r_amt", 16, 2))
    (folder / "record.json").write_bytes((other / "record.json").read_bytes())
    with pytest.raises(tracking.TrackingError, match="is another run's"):
        tracking.track(finished, show_progress=False)


def test_a_store_that_moved_is_refused(finished: plan.Plan, tmp_path: Path) -> None:
    tracking.track(finished, show_progress=False)
    (tmp_path / "my results").rename(tmp_path / "moved")
    with pytest.raises(tracking.TrackingError, match=r"moved/mlflow\.db.*delete it"):
        tracking.track(make_plan(tmp_path / "moved"), show_progress=False)


def test_an_unreachable_server_is_one_line_and_soon(finished: plan.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(tracking.TrackingError) as caught:
        tracking.track(finished, show_progress=False)
    assert time.monotonic() - started < 30
    message = str(caught.value)
    assert message.startswith("MLflow at http://127.0.0.1:9: no answer; the runs are safe in ")
    assert "start the server or unset MLFLOW_TRACKING_URI" in message
    assert "secret" not in message
    assert "\n" not in message


def test_the_terminal_shows_what_was_done_and_where_to_look(unfilled: plan.Plan, tmp_path: Path) -> None:
    """In a process of its own, because MLflow's and Alembic's chatter comes with the creation of the store."""
    script = "import json, sys; from rmt import plan, tracking; tracking.track(plan.check(json.loads(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(dict(unfilled.config))],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(tracking.__file__).parents[1])},
    )  # fmt: skip
    assert done.stderr == ""
    store = f"sqlite:///{tmp_path}/my results/mlflow.db"
    assert done.stdout.splitlines() == [
        f"{store} holds 9 runs in demo/few_shot: 9 imported, 0 replaced, 0 already there",
        f"look at them with `mlflow ui --backend-store-uri '{store}'` at http://127.0.0.1:5000/#/experiments/1/runs"
        "?workflowType=machine_learning&viewStateShareKey=scores",
    ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on loopback that keeps the artifacts itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = tmp_path / "server"
    store.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store}/db.sqlite", "--artifacts-destination", str(store / "files")]
    with (store / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=store, start_new_session=True)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (store / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def test_a_server_receives_runs_and_artifacts(unfilled: plan.Plan, server: str, tmp_path: Path) -> None:
    planned = make_plan(tmp_path / "my results", shots=[16], seeds=[1])
    summary = tracking.track(planned, uri=server, show_progress=False)
    assert (summary.imported, summary.already_there) == (3, 0)
    again = tracking.track(planned, uri=server, show_progress=False)
    assert (again.imported, again.already_there) == (0, 3)
    run = summary.runs[folder_of(unfilled, "r_amt", 16, 1)]
    assert len(client_of(summary).get_metric_history(run, "curve/loss")) == CURVE_STEPS
    stored = list((tmp_path / "server" / "files").rglob(f"{run}/artifacts/adapter.safetensors"))
    assert [path.read_bytes() for path in stored] == [
        (Path(folder_of(unfilled, "r_amt", 16, 1)) / "adapter.safetensors").read_bytes()
    ]
    assert not (tmp_path / "my results" / "mlflow.db").exists()
    assert summary.viewer is None
    assert summary.look().startswith(f"look at them at {server}/#/experiments/")
