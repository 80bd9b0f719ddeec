"""The DAG as its user runs it: end to end, continued, changed, interrupted, misconfigured."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "rmt", "data_prep", "reports")
SMALL = {
    "benchmark": "small",
    "datasets": ["colors", "displays"],
    "shots": [1, 2],
    "seeds": [1, 2],
    "fit_grouping": "seeds",
    "device": "cpu",
    "views": 2,
    "resamples": 200,
    "methods": {
        "zero_shot": {},
        "clip_adapter": {"epochs": 4},
        "tip_adapter": {"search_steps": [10, 5]},
        "r_amt": {"learning_rate": 1e-3, "epochs": 8},
        "tip_adapter+r_amt": {"search_steps": [10, 5]},
    },
}


def checkout(folder: Path) -> Path:
    """A folder that holds the project's sources as links, so that results and data land in it."""
    for name in PARTS:
        (folder / name).symlink_to(ROOT / name)
    return folder


def snakemake(folder: Path, config: dict, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"reports_folder": "pages"}))
    command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "2", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})


def planned(folder: Path, config: dict, *words: str) -> dict[str, int]:
    """Jobs that a dry run would execute, by rule."""
    done = snakemake(folder, config, "--dry-run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0]
    return {name: int(number) for name, number in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


def fits(folder: Path, config: dict) -> set[str]:
    """`method on dataset` of every fit that a dry run would execute."""
    done = snakemake(folder, config, "--dry-run")
    return set(re.findall(r"fit: (\S+ on \w+)", done.stdout + done.stderr))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = checkout(tmp_path_factory.mktemp("small"))
    done = snakemake(folder, SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_end_to_end(finished) -> None:
    records = list((finished / "results/small/runs").rglob("record.json"))
    assert len(records) == 2 * (1 + 4 * 2 * 2)
    page = (finished / "pages/small/index.md").read_text()
    for words in ("Zero-shot CLIP", "Tip-Adapter + R-AMT", "Colors", "Displays"):
        assert words in page
    assert len(list((finished / "pages/small/figures").glob("*.png"))) >= 2
    assert "## What was masked" in page and (finished / "pages/small/figures/masks.png").exists()
    masked = pd.read_csv(finished / "results/small/masks.csv")
    assert set(masked.method) == {"r_amt"} and len(masked) == 2 * 2 * 2 * (1 + 3 * 4)
    assert len(pd.read_csv(finished / "results/small/mask_overlaps.csv")) == 2 * 2 + 2 * 2
    table = pd.read_csv(finished / "results/small/records.csv")
    assert set(table.method) == set(SMALL["methods"])
    assert json.loads((finished / "results/small/tracked.json").read_text())
    assert (finished / "results/mlflow.db").exists()
    zero_shot = table[(table.method == "zero_shot") & (table.eval_set == "test")].set_index("dataset").accuracy
    assert 100 / 8 < zero_shot["colors"] < 80 and 100 / 10 < zero_shot["displays"] < 80


def test_every_method_saw_the_same_images(finished) -> None:
    seen: dict[tuple, set[str]] = {}
    for path in (finished / "results/small/runs").rglob("record.json"):
        record = json.loads(path.read_text())
        one = record["identity"]
        if one["shots"]:
            seen.setdefault((one["dataset"], one["shots"], one["seed"]), set()).add(
                record["provenance"]["sample_sha256"]
            )
    assert len(seen) == 8 and all(len(hashes) == 1 for hashes in seen.values())


def test_a_second_run_does_nothing(finished) -> None:
    assert planned(finished, SMALL) == {}


TABLES = {"collect": 1, "compare": 1, "masks": 1, "figures": 1, "render": 1, "track": 1, "default": 1}


def change(method: str, **settings: object) -> dict:
    return SMALL | {"methods": SMALL["methods"] | {method: SMALL["methods"][method] | settings}}


def test_one_hyperparameter_reruns_one_method_and_what_depends_on_it(finished) -> None:
    changed = change("clip_adapter", epochs=5)
    assert planned(finished, changed) == TABLES | {"fit_features": 2}
    assert fits(finished, changed) == {"clip_adapter on colors", "clip_adapter on displays"}


def test_a_change_below_a_stack_reruns_the_stack(finished) -> None:
    changed = change("r_amt", epochs=9)
    assert planned(finished, changed) == TABLES | {"fit_images": 2 * 2 * 2}
    names = ("r_amt", "tip_adapter+r_amt")
    assert fits(finished, changed) == {f"{name} on {dataset}" for name in names for dataset in ("colors", "displays")}


def test_a_new_method_runs_alone(finished) -> None:
    changed = SMALL | {"methods": SMALL["methods"] | {"r_amt_soft": {"use": "r_amt", "level": 0.3, "epochs": 2}}}
    assert planned(finished, changed) == TABLES | {"fit_images": 4}


def test_the_report_alone_follows_its_own_settings(finished) -> None:
    assert "fit_images" not in planned(finished, SMALL | {"control": "tip_adapter"})


def test_masks_are_not_measured_where_no_method_masks(finished) -> None:
    methods = {name: one for name, one in SMALL["methods"].items() if "r_amt" not in name}
    assert planned(finished, SMALL | {"methods": methods}) == {name: n for name, n in TABLES.items() if name != "masks"}


def test_partial_targets(finished) -> None:
    fresh = SMALL | {"benchmark": "other"}
    for target, rules in (
        ("samples", {"sample": 8, "samples": 1}),
        ("tables", {"collect": 1, "compare": 1, "tables": 1}),
    ):
        done = snakemake(finished, fresh, "--dry-run", target)
        text = done.stdout + done.stderr
        for rule, number in rules.items():
            assert re.search(rf"^{rule}\s+{number}$", text, re.MULTILINE), (target, rule)
        assert "render" not in text


def test_a_lost_record_is_made_again_and_equal(finished) -> None:
    run = finished / "results/small/runs/few_shot/tiny_clip/colors/r_amt/2shot/seed1"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (run / "record.json").unlink()
    # Asked for by name, because Snakemake does not miss an input of tables that are there.
    assert planned(finished, SMALL, "runs") == {"fit_images": 2, "runs": 1}  # the lost run's job, the stack above it
    done = snakemake(finished, SMALL, "runs")
    assert done.returncode == 0, done.stderr
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    for name in ("predictions.parquet", "curve.csv", "adapter.safetensors"):
        assert after[name] == before[name], name
    old, new = (json.loads(content["record.json"]) for content in (before, after))
    assert {key: value for key, value in old.items() if key != "cost"} == {
        key: value for key, value in new.items() if key != "cost"
    }
    assert set(planned(finished, SMALL)) == set(TABLES)  # the tables follow
    assert snakemake(finished, SMALL).returncode == 0
    assert planned(finished, SMALL) == {}


def test_a_killed_benchmark_goes_on_where_it_was(tmp_path) -> None:
    """SIGKILL for all processes in mid-fit: no record of the cut run; finished seeds are not fitted again."""
    folder = checkout(tmp_path)
    config = SMALL | {"datasets": ["colors"], "methods": {"r_amt": {"epochs": 250, "learning_rate": 1e-4}}}
    config |= {"shots": [8], "seeds": [1, 2, 3]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"reports_folder": "pages"}))
    command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "1", "runs"]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL)
    runs = folder / "results/small/runs/few_shot/tiny_clip/colors/r_amt/8shot"
    deadline = time.monotonic() + 180
    while not (runs / "seed1/record.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = (runs / "seed1/record.json").read_text()
    assert not (runs / "seed3/record.json").exists()
    assert snakemake(folder, config, "--unlock").returncode == 0
    done = snakemake(folder, config, "--rerun-incomplete", "runs")
    assert done.returncode == 0, done.stderr
    assert (runs / "seed1/record.json").read_text() == first
    assert len(list(runs.rglob("record.json"))) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": {"r_atm": {}}}, "key 'methods.r_atm': unknown name 'r_atm'; did you mean 'r_amt'?"),
        ({"datasets": ["colour"]}, "key 'datasets': unknown name 'colour'; did you mean 'colors'?"),
        ({"seed": [1]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"shots": "all"}, "key 'shots': expected array, got str 'all'"),
    ],
)
def test_a_mistake_stops_before_any_job_with_one_readable_line(tmp_path, change: dict, words: str) -> None:
    folder = checkout(tmp_path)
    done = snakemake(folder, SMALL | change)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if words in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "data").exists() and not (folder / "results").exists()


def test_another_config_takes_nothing_from_the_demo(tmp_path) -> None:
    """Snakemake merges config files; the default must not leak its methods and learning rates into others."""
    folder = checkout(tmp_path)
    done = snakemake(folder, SMALL | {"methods": {"r_amt": {}}}, "--dry-run", "--printshellcmds")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "-m rmt fit" in line]
    assert len(lines) == 4 and all("--method r_amt " in line and "--overrides '{}'" in line for line in lines)


def test_without_a_config_the_demo_is_planned(tmp_path) -> None:
    folder = checkout(tmp_path)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--config", "resamples=200"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "results/demo/tracked.json" in done.stdout + done.stderr
    assert '"resamples": 200' in done.stdout + done.stderr or "r_amt on digits" in done.stdout + done.stderr


def test_the_papers_grid_is_planned_before_its_data_exist(tmp_path) -> None:
    folder = checkout(tmp_path)
    config = yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text())
    jobs = planned(folder, config)
    assert jobs["download"] == jobs["encode"] == jobs["fit_once"] == 11
    assert jobs["sample"] == 11 * 5 * 3
    assert jobs["fit_images"] == 13 * 11 * 5 * 3
    assert jobs["fit_features"] == 6 * 11


def test_the_door_and_the_table_of_contents_build_the_same(tmp_path) -> None:
    folder = checkout(tmp_path)
    by_door = planned(folder, SMALL)
    done = snakemake(folder, SMALL, "--dry-run", "--snakefile", "workflow/Snakefile")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^render\s+1$", done.stdout + done.stderr, re.MULTILINE)
    assert by_door["render"] == 1 and by_door["fit_once"] == 2
