"""Mask tuning's defaults: each value, and the source that it is taken from.

The authors' released code (wuw2019/R-AMT: configs/trainers/.../vit_b16.yaml, trainers/masktuning.py), and for the level
their README's sentence: 0.3 at 16 shots except on ImageNet, SUN397 and Food101, otherwise 1.0. (Their yaml files and
their script for base-to-new say 1.0 throughout, and the README's own examples say the opposite of the sentence.)
"""

import pytest
import torch

from data_prep import catalog
from rmt import masks, registry
from rmt.methods.mask_tuning import MaskTuner, planned_epochs
from rmt.train import cosine

ELEVEN = [name for name, entry in catalog.DATASETS.items() if entry.coop_folder and entry.trainable]
MASKED = [name for name, method in registry.METHODS.items() if method.masks]


def settings(method: str, dataset: str, shots: int) -> dict:
    return {name: default.resolve(dataset, shots) for name, default in registry.METHODS[method].defaults.items()}


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [
        ("targets", "attention", "released code"),
        ("initial_score", 0.01, "released code"),
        ("threshold", 0.005, "released code"),
        ("mask_loss_weight", 1e-4, "released code"),
        ("batch_size", 32, "released code"),
        ("crop_scale", (0.5, 1.0), "released code"),
        ("minimum_travel", 0.0075, "ours"),
    ],
)
def test_a_default_that_is_the_same_everywhere(name: str, value: object, source: str) -> None:
    default = registry.METHODS["r_amt"].defaults[name]
    assert source in default.source
    for dataset in (*ELEVEN, "digits", "a_set_of_ones_own"):
        for shots in (1, 2, 4, 8, 16):
            assert default.resolve(dataset, shots) == value


@pytest.mark.parametrize(
    ("dataset", "shots", "rate", "epochs", "level"),
    [
        ("imagenet", 1, 3e-5, 10, 1.0),
        ("imagenet", 16, 3e-5, 10, 1.0),
        ("sun397", 16, 8e-5, 30, 1.0),
        ("food101", 16, 8e-5, 30, 1.0),
        ("food101", 1, 8e-5, 30, 1.0),
        ("caltech101", 16, 8e-5, 30, 0.3),
        ("oxford_pets", 16, 8e-5, 30, 0.3),
        ("eurosat", 16, 8e-5, 30, 0.3),
        ("eurosat", 8, 8e-5, 30, 1.0),
        ("dtd", 4, 8e-5, 30, 1.0),
        ("ucf101", 2, 8e-5, 30, 1.0),
        ("a_set_of_ones_own", 16, 8e-5, 30, 0.3),
    ],
)
def test_defaults_by_dataset_and_shots(dataset: str, shots: int, rate: float, epochs: int, level: float) -> None:
    defaults = registry.METHODS["r_amt"].defaults
    found = settings("r_amt", dataset, shots)
    assert (found["learning_rate"], found["epochs"], found["level"]) == (rate, epochs, level)
    for name, source in (("learning_rate", "released code"), ("epochs", "released code"), ("level", "authors' README")):
        assert source in defaults[name].source


def test_the_level_over_the_papers_whole_grid() -> None:
    soft = {
        (dataset, shots)
        for dataset in ELEVEN
        for shots in (1, 2, 4, 8, 16)
        if settings("r_amt", dataset, shots)["level"] == 0.3
    }
    assert soft == {(dataset, 16) for dataset in set(ELEVEN) - {"imagenet", "sun397", "food101"}}
    assert len(ELEVEN) == 11 and len(soft) == 8


def test_the_other_mask_methods_differ_from_r_amt_in_one_value_each() -> None:
    expected = {
        "r_amt": {},
        "amt": {"level": 0.0},
        "r_mmt": {"targets": "mlp"},
        "r_pmt": {"targets": "all"},
        "r_amt_released": {"minimum_travel": 0.0},
    }
    assert set(expected) == set(MASKED)
    for dataset, shots in (("dtd", 16), ("imagenet", 16), ("eurosat", 1)):
        control = settings("r_amt", dataset, shots)
        for method, difference in expected.items():
            found = settings(method, dataset, shots)
            assert found == control | difference, (method, dataset, shots)
    sources = {name: registry.METHODS[name].defaults for name in MASKED}
    assert "AMT" in sources["amt"]["level"].source
    assert "released code cannot run it" in sources["r_mmt"]["targets"].source
    assert "MASK_MLP True" in sources["r_pmt"]["targets"].source
    assert "released code" in sources["r_amt_released"]["minimum_travel"].source


def test_the_optimiser_is_the_released_one(golden) -> None:
    """Adam at torch's defaults without weight decay, on the scores and nothing else; a cosine per epoch, no warm-up."""
    data = golden("r_amt_s0_inputs")
    tower = data.tower()
    tuner = MaskTuner(tower, data["class_text_features"], 100.0, torch.Generator())
    (group,) = tuner.optimiser.param_groups
    assert type(tuner.optimiser) is torch.optim.Adam
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (8e-5, (0.9, 0.999), 1e-8, 0)
    assert {id(one) for one in group["params"]} == {id(score) for score in tuner.scores.values()}
    assert all(bool((score == 0.01).all()) for score in tuner.scores.values())
    assert all(bool(mask.all()) for mask in tuner.masks().values())
    assert [cosine(epoch, 30) for epoch in (0, 15, 30)] == pytest.approx([1.0, 0.5, 0.0])


def test_a_score_at_the_threshold_switches_its_weight_off() -> None:
    threshold = settings("r_amt", "dtd", 16)["threshold"]
    at = torch.tensor(threshold)
    scores = torch.stack([at, at.nextafter(torch.tensor(1.0)), torch.tensor(-1.0)])
    assert masks.bits({"one": scores}, threshold)["one"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("dataset", "shots", "images", "can_flip"),
    [("eurosat", 1, 10, False), ("eurosat", 8, 80, False), ("dtd", 2, 94, False), ("dtd", 16, 752, True)],
)
def test_the_released_schedule_and_the_floor(dataset: str, shots: int, images: int, can_flip: bool) -> None:
    """Sum of the learning rates of a whole run: what a score can move by, against the 0.005 to the threshold."""

    def travel(method: str) -> float:
        found = settings(method, dataset, shots)
        steps = max(images // found["batch_size"], 1)
        epochs = planned_epochs(found, steps)
        return found["learning_rate"] * steps * sum(cosine(epoch, epochs) for epoch in range(epochs))

    assert (travel("r_amt_released") > 0.005) == can_flip
    assert travel("r_amt") >= 0.0075 - 1e-9
