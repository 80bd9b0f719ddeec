"""The one contract suite: every registered method, and every stack, on a toy dataset."""

from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rmt import evaluate, fit, masks, methods, records, registry
from rmt.data import read_sample
from rmt.job import prepare
from rmt.resume import Interrupted, Progress
from tests import toy
from tests.toy import short

STACKS = [
    f"{name}+{below}"
    for name, method in registry.METHODS.items()
    for below in ("r_amt", "coop")
    if registry.METHODS[below].offers in method.stands_on and (below == "r_amt" or name == "r_amt")
]
STARTS_AT_ZERO_SHOT = ("coop", "taskres", "clip_lora", "r_amt", "r_mmt", "r_pmt", "amt")
ANSWERS_FROM_ITS_BEST_STEP = ("lp_plus_plus", "tip_adapter_f_test_oracle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy with its features and finished runs below the stacks."""
    made = toy.make(tmp_path_factory.mktemp("toy"))
    assert toy.encode(made) == 0
    for below in ("r_amt", "coop"):
        for results in ("results", "again"):
            assert toy.fit(made, below, results=results, **short(below)) == 0
    return made


def cells(method: str) -> list[tuple[int, int]]:
    if not registry.METHODS[method.split("+")[0]].few_shot:
        return [(0, 0)]
    return [(shots, seed) for shots in (1, 2) for seed in (1, 2)]


@pytest.mark.parametrize("method", [*registry.METHODS, *STACKS])
def test_a_method_keeps_the_contract(folder, method: str) -> None:
    use = method.split("+")[0]
    overrides = short(use)
    assert toy.fit(folder, method, **overrides) == 0
    assert toy.fit(folder, method, results="again", **overrides) == 0
    for shots, seed in cells(method):
        run = toy.run_folder(folder, method, shots, seed)
        assert sorted(path.name for path in run.iterdir()) == sorted(records.FILES)
        record = records.read(run)
        assert record["identity"]["method"] == method
        assert record["method"]["below"] == (method.partition("+")[2] or None)
        expected = {name: default.resolve("digits", shots) for name, default in registry.METHODS[use].defaults.items()}
        for name, value in record["hyperparameters"].items():
            if name in overrides:
                assert value == overrides[name]
            elif name != "precision":
                assert value == (list(expected[name]) if isinstance(expected[name], tuple) else expected[name])

        table = pd.read_parquet(run / "predictions.parquet")
        assert tuple(table.columns) == records.PREDICTION_COLUMNS
        test = table[table.eval_set == "test"]
        correct = test.label == test.predicted
        assert len(test) == 40
        assert record["metrics"]["test"]["correct"] == correct.sum()
        assert record["metrics"]["test"]["accuracy"] == pytest.approx(100 * correct.mean())
        assert ((test.margin > 0) == correct).all()
        assert (test.probability <= test.confidence + 1e-6).all()
        assert ("val" in set(table.eval_set)) == (shots > 0)

        curve = pd.read_csv(run / "curve.csv")
        if "loss" in curve:
            assert len(curve) == record["tuning"]["optimisation_steps"] > 0
            assert curve.step.tolist() == list(range(1, len(curve) + 1))
            assert curve.loss.notna().all()
        adapter = load_file(run / "adapter.safetensors")
        assert record["tuning"]["adapter_bytes"] == (run / "adapter.safetensors").stat().st_size
        if registry.METHODS[use].masks:
            total, flipped = masks.count(masks.unpack(adapter))
            assert (total, flipped) == (record["tuning"]["masks_total"], record["tuning"]["masks_flipped"])
            assert flipped == curve.masks_flipped.iloc[-1]
        checkpoint = "best" if use in ANSWERS_FROM_ITS_BEST_STEP else "last"
        assert record["selection"]["checkpoint"] == (checkpoint if record["tuning"]["optimisation_steps"] else "none")
        if record["selection"]["rule"] == "val":
            assert record["selection"]["images"] == 4 * shots and record["selection"]["candidates"] > 1
        assert (record["selection"]["rule"] == "test_oracle") == registry.METHODS[use].oracle

        other = toy.run_folder(folder, method, shots, seed, results="again")
        assert same_run(records.read(other)) == same_run(record)
        for name in ("predictions.parquet", "curve.csv", "adapter.safetensors"):
            assert (other / name).read_bytes() == (run / name).read_bytes(), name


def same_run(record: dict[str, Any]) -> dict[str, Any]:
    """What must repeat to the bit; the two runs were written to two places."""
    kept = records.without_times(record)
    return kept | {"provenance": {name: value for name, value in kept["provenance"].items() if name != "command"}}


@pytest.mark.parametrize("method", [*registry.METHODS, *STACKS])
def test_what_is_stored_answers_like_the_run_itself(folder, method: str) -> None:
    """Logits from the adapter on disk equal those of the run to the bit."""
    use = method.split("+")[0]
    assert toy.fit(folder, method, **short(use)) == 0
    shots, seed = cells(method)[-1]
    run = toy.run_folder(folder, method, shots, seed)
    job = toy.job(folder, method, "results", **short(use))
    sample = read_sample(toy.sample_file(folder, shots, seed)) if shots else None
    task, questions = prepare(job, sample, records.read(run)["hyperparameters"], Progress())
    answer = methods.answer(use, task, load_file(run / "adapter.safetensors"), records.read(run)["selection"]["chosen"])
    table = pd.read_parquet(run / "predictions.parquet")
    assert [one.asked.name for one in questions] == list(dict.fromkeys(table.eval_set))
    for one in questions:
        with torch.no_grad():
            found = evaluate.predictions(one.asked.name, one.paths, one.labels, one.logits(answer)).to_pandas()
        expected = table[table.eval_set == one.asked.name].reset_index(drop=True)
        assert (found.predicted == expected.predicted).all() and (found.margin == expected.margin).all()


@pytest.mark.parametrize("method", [*registry.METHODS, *STACKS])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(folder, tmp_path, method: str) -> None:
    use = method.split("+")[0]
    shots, seed = cells(method)[-1]
    sample = read_sample(toy.sample_file(folder, shots, seed)) if shots else None
    job = toy.job(folder, method, "results", **short(use))
    whole = fit.run(job, sample)
    if not whole.tuned.curve:
        return
    steps = len(whole.tuned.curve)
    for interruption in {1, max(1, steps // 2), steps}:
        with pytest.raises(Interrupted, match=f"SIGTERM after step {interruption}"):
            fit.run(job, sample, progress=toy.StoppedAt(tmp_path / str(interruption), interruption))
        rest = fit.run(job, sample, progress=Progress(tmp_path / str(interruption), 1e9))
        assert rest.adapter == whole.adapter
        assert rest.tuned.curve == whole.tuned.curve
        assert rest.predictions == whole.predictions


@pytest.mark.parametrize("method", [name for name, one in registry.METHODS.items() if "learning_rate" in one.defaults])
def test_the_loss_falls(folder, method: str) -> None:
    settings = short(method)
    if "epochs" in registry.METHODS[method].defaults:
        settings |= {"epochs": 25, "learning_rate": 3e-3 if registry.METHODS[method].masks else 0.01}
    if "iterations" in registry.METHODS[method].defaults:
        settings |= {"iterations": 40, "learning_rate": 2e-3}
    sample = read_sample(toy.sample_file(folder, 2, 1))
    curve = fit.run(toy.job(folder, method, **settings), sample).tuned.curve
    losses = [row["loss"] for row in curve]
    quarter = max(1, len(losses) // 4)
    assert sum(losses[-quarter:]) < sum(losses[:quarter])


@pytest.mark.parametrize("method", STARTS_AT_ZERO_SHOT)
def test_what_has_not_moved_is_zero_shot(folder, method: str) -> None:
    """At a learning rate of almost 0 the method gives zero-shot's answers."""
    rates = {name: 1e-12 for name in registry.METHODS[method].defaults if name.endswith("learning_rate")}
    settings = short(method) | rates | ({"minimum_travel": 0.0} if registry.METHODS[method].masks else {})
    sample = read_sample(toy.sample_file(folder, 2, 1))
    tuned = fit.run(toy.job(folder, method, **settings), sample).predictions["test"].to_pandas()
    frozen = fit.run(toy.job(folder, "zero_shot"), None).predictions["test"].to_pandas()
    assert (tuned.predicted == frozen.predicted).all()
    assert (tuned.margin - frozen.margin).abs().max() < 1e-4


def test_tuned_masks_flip_and_the_released_schedule_flips_none(folder) -> None:
    tuned = records.read(toy.run_folder(folder, "r_amt", 2, 1))["tuning"]
    released = records.read(toy.run_folder(folder, "r_amt_released", 2, 1))
    assert tuned["masks_flipped"] > 0
    assert tuned["masked_fraction"] == tuned["masks_flipped"] / tuned["masks_total"]
    assert released["tuning"]["masks_flipped"] == 0 and released["tuning"]["optimisation_steps"] == 30
    zero_shot = pd.read_parquet(toy.run_folder(folder, "zero_shot", 0, 0) / "predictions.parquet")
    same = pd.read_parquet(toy.run_folder(folder, "r_amt_released", 2, 1) / "predictions.parquet")
    same = same[same.eval_set == "test"].reset_index(drop=True)
    zero_shot = zero_shot[zero_shot.eval_set == "test"].reset_index(drop=True)
    assert (same.predicted == zero_shot.predicted).all()
    assert (same.margin - zero_shot.margin).abs().max() == 0


def test_a_stack_stands_on_the_tuned_tower(folder) -> None:
    """Tip-Adapter on the tuned tower sees other features than on the frozen one."""
    for method in ("tip_adapter", "tip_adapter+r_amt"):
        assert toy.fit(folder, method, **short("tip_adapter")) == 0
    keys = {
        method: load_file(toy.run_folder(folder, method, 2, 1) / "adapter.safetensors")["keys"]
        for method in ("tip_adapter", "tip_adapter+r_amt")
    }
    assert keys["tip_adapter"].shape == keys["tip_adapter+r_amt"].shape == (8, 128)
    assert float((keys["tip_adapter"] - keys["tip_adapter+r_amt"]).abs().max()) > 1e-3
    torch.testing.assert_close(keys["tip_adapter"].norm(dim=1), torch.ones(8))


def test_a_stack_without_its_tower_says_what_to_fit_first(tmp_path, capsys) -> None:
    made = toy.make(tmp_path, shots=(1,), seeds=(1,))
    assert toy.fit(made, "tip_adapter+r_amt") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no finished run of r_amt" in error and "fit it first" in error
