"""The one contract suite: every registered method, and every stack, on a toy dataset."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rmt import masks, records, registry
from tests import toy

SHORT = {
    "coop": {"epochs": 3, "initial_context": "prompt"},
    "clip_adapter": {"epochs": 5},
    "tip_adapter": {"search_steps": [20, 5]},
    "tip_adapter_f": {"epochs": 5, "search_steps": [20, 5]},
    "r_amt": {"learning_rate": 1e-3, "epochs": 12},
    "amt": {"learning_rate": 1e-3, "epochs": 12},
}
STACKS = [f"{name}+r_amt" for name in registry.STACKABLE]
TRAINED = ("coop", "clip_adapter", "tip_adapter_f", "r_amt", "amt", "r_amt_released")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy with its features and a finished r_amt below the stacks."""
    made = toy.make(tmp_path_factory.mktemp("toy"))
    assert toy.encode(made) == 0
    assert toy.fit(made, "r_amt", **SHORT["r_amt"]) == 0
    return made


def cells(method: str) -> list[tuple[int, int]]:
    if not registry.METHODS[method.split("+")[0]].few_shot:
        return [(0, 0)]
    return [(shots, seed) for shots in (1, 2) for seed in (1, 2)]


@pytest.mark.parametrize("method", [*registry.METHODS, *STACKS])
def test_a_method_keeps_the_contract(folder, method: str) -> None:
    use = method.split("+")[0]
    overrides = SHORT.get(use, {})
    assert toy.fit(folder, method, **overrides) == 0
    assert toy.fit(folder, method, results="again", chosen=None, **overrides) == 0 if "+" not in method else True
    for shots, seed in cells(method):
        run = toy.run_folder(folder, method, shots, seed)
        assert sorted(path.name for path in run.iterdir()) == sorted(records.FILES)
        record = records.read(run)
        assert record["identity"]["method"] == method
        assert record["method"]["tower"] == ("r_amt" if "+" in method else None)
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
        if use in TRAINED:
            assert len(curve) == record["tuning"]["optimisation_steps"] > 0
            assert curve.step.tolist() == list(range(1, len(curve) + 1))
            assert curve.loss.notna().all()
        adapter = load_file(run / "adapter.safetensors")
        assert record["tuning"]["adapter_bytes"] == (run / "adapter.safetensors").stat().st_size
        if registry.METHODS[use].masks:
            total, flipped = masks.count(masks.unpack(adapter))
            assert (total, flipped) == (record["tuning"]["masks_total"], record["tuning"]["masks_flipped"])
            assert total == 3 * (384 * 128 + 128 * 128) + 128 * 3 * 8 * 8
            assert flipped == curve.masks_flipped.iloc[-1]
        if record["selection"]["rule"] == "val":
            assert record["selection"]["images"] == 4 * shots and record["selection"]["candidates"] > 1

        if "+" not in method:
            other = toy.run_folder(folder, method, shots, seed, results="again")
            assert records.without_times(records.read(other)) == records.without_times(record)
            for name in ("predictions.parquet", "curve.csv", "adapter.safetensors"):
                assert (other / name).read_bytes() == (run / name).read_bytes(), name


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
        assert toy.fit(folder, method, **SHORT["tip_adapter"]) == 0
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
