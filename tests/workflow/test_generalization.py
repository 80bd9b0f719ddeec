"""The generalization demo in miniature, through Snakemake: held-out classes, styles, other datasets, and their page."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from data_prep.__main__ import main as data_prep
from rmt import plan, records
from tests.workflow.test_workflow import ROOT, checkout, planned, snakemake

SHIFTS = {"letters_redrawn": 1040, "letters_sketch": 1040, "letters_hard": 840, "letters_renditions": 780}
METHODS = {
    "zero_shot": {},
    "tip_adapter": {"search_steps": [10, 5]},
    "r_amt": {"learning_rate": 1e-3, "epochs": 8},
}
DEMO = yaml.safe_load((ROOT / "workflow/config/demo_generalization.yaml").read_text())
SMALL = DEMO | {
    "benchmark": "beyond",
    "datasets": ["letters", "colors"],
    "sources": ["letters"],
    "shots": [1],
    "seeds": [1],
    "views": 2,
    "resamples": 200,
    "methods": METHODS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout in which everything is finished."""
    made = checkout(tmp_path_factory.mktemp("beyond"))
    # Drawn in this process, because to import torch for every one of them would take longer than all the fits.
    for name in ("letters", "colors", *SHIFTS):
        data = made / "data" / name
        assert data_prep(["download", name, "--data", f"{made}/data"]) == 0
        assert data_prep(["split", name, "--data", f"{made}/data", "--output", f"{data}/split.json"]) == 0
        words = ["pack", name, "--split", f"{data}/split.json", "--images", f"{data}/images", "--pixels", "32"]
        assert data_prep([*words, "--output", f"{data}/pack/32px.npy"]) == 0
    done = snakemake(made, SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def run_of(folder: Path, protocol: str, dataset: str, method: str) -> Path:
    cell = "0shot/seed0" if method == "zero_shot" else "1shot/seed1"
    return folder / "results/beyond/runs" / protocol / "tiny_clip" / dataset / method / cell


def sizes_of(run: Path) -> dict[str, int]:
    """Images of every evaluation set in the stored predictions, the few-shot validation images apart."""
    counts = pd.read_parquet(run / "predictions.parquet").eval_set.value_counts()
    return {str(name): int(number) for name, number in counts.items() if name != "val"}


def test_every_planned_run_is_there_and_no_other(folder) -> None:
    wanted = {str(one.folder(folder / "results")) for one in plan.check(SMALL).identities()}
    assert {str(path.parent) for path in (folder / "results/beyond").rglob("record.json")} == wanted
    assert len(wanted) == 2 * 2 + 3 + 2
    # Tip-Adapter is bound to its classes, so it takes part in domain_shift alone.
    assert [Path(path).parts[-6] for path in wanted if "tip_adapter" in path] == ["domain_shift"]
    assert planned(folder, SMALL) == {}


@pytest.mark.parametrize("method", ["zero_shot", "r_amt"])
def test_held_out_classes(folder, method: str) -> None:
    for dataset, sizes in (("letters", (442, 442)), ("colors", (312, 312))):
        run = run_of(folder, "base_to_new", dataset, method)
        assert sizes_of(run) == dict(zip(("base", "new"), sizes, strict=True))
        metrics = records.read(run)["metrics"]
        assert min(metrics[half]["accuracy"] for half in ("base", "new")) > 100 * 2 / 13


@pytest.mark.parametrize("method", list(METHODS))
def test_styles_never_seen(folder, method: str) -> None:
    run = run_of(folder, "domain_shift", "letters", method)
    assert sizes_of(run) == {"test": 884} | SHIFTS
    metrics = records.read(run)["metrics"]
    assert metrics["letters_hard"]["accuracy"] < metrics["letters_redrawn"]["accuracy"]
    assert all(metrics[name]["accuracy"] > 10 for name in SHIFTS)


def test_other_datasets(folder) -> None:
    for method in ("zero_shot", "r_amt"):
        run = run_of(folder, "cross_dataset", "letters", method)
        assert sizes_of(run) == {"test": 884, "colors": 624}
    # Asked for the whole of colors, zero-shot CLIP answers as it does for its two halves, but among all classes.
    table = pd.read_parquet(run_of(folder, "cross_dataset", "letters", "zero_shot") / "predictions.parquet")
    assert set(table[table.eval_set == "colors"].label) == set(range(8))


def test_the_protocol_changes_what_is_asked_and_not_what_is_tuned(folder) -> None:
    shift, cross = (run_of(folder, protocol, "letters", "r_amt") for protocol in ("domain_shift", "cross_dataset"))
    assert (shift / "adapter.safetensors").read_bytes() == (cross / "adapter.safetensors").read_bytes()
    assert (shift / "curve.csv").read_bytes() == (cross / "curve.csv").read_bytes()
    assert records.read(shift)["metrics"]["test"] == records.read(cross)["metrics"]["test"]
    half = run_of(folder, "base_to_new", "letters", "r_amt")
    assert (half / "adapter.safetensors").read_bytes() != (shift / "adapter.safetensors").read_bytes()
    assert records.read(half)["task"]["classes"] == list("ABCDEFGHIJKLM")


def test_the_page_has_every_protocol(folder) -> None:
    page = (folder / "pages/beyond/index.md").read_text()
    for heading in ("## Base to new classes", "## Shifted test sets", "## From one dataset to the others"):
        assert page.count(f"{heading}\n") == 1
    assert "9 planned runs: 4 under base_to_new, 3 under domain_shift, 2 under cross_dataset." in page
    for label in ("Letters, redrawn", "Letters, sketch", "Letters, hard", "Letters, renditions", "Colors", "R-AMT"):
        assert label in page
    table = pd.read_csv(folder / "results/beyond/records.csv")
    assert set(table.eval_set) >= {"base", "new", "test", "colors", *SHIFTS}
