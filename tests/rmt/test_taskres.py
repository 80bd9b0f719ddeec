"""TaskRes beyond the contract: its size, its schedule, its departures."""

import pytest
import torch

from rmt.methods import taskres
from tests import toy


def test_it_trains_one_number_per_class_and_feature() -> None:
    tuned = taskres.tune(toy.task("taskres", classes=7, width=512, epochs=1))
    assert tuned.trainable_parameters == tuned.adapter["residual"].numel() == 7 * 512


@pytest.mark.parametrize(
    ("dataset", "shots", "rate", "epochs", "scale"),
    [
        ("dtd", 1, 2e-3, 100, 0.5),
        ("oxford_flowers", 4, 2e-3, 100, 1.0),
        ("eurosat", 8, 2e-3, 200, 0.5),
        ("imagenet", 16, 2e-4, 200, 0.5),
    ],
)
def test_the_released_settings(dataset: str, shots: int, rate: float, epochs: int, scale: float) -> None:
    settings = toy.task("taskres", shots=shots, dataset=dataset).hyperparameters
    found = [settings[name] for name in ("learning_rate", "epochs", "residual_scale", "batch_size")]
    assert found == [rate, epochs, scale, 256]


def test_its_first_epoch_warms_up_and_its_rate_falls_once_per_epoch() -> None:
    curve = taskres.tune(toy.task("taskres", classes=4, shots=4, epochs=4, batch_size=8)).curve
    rates = [row["learning_rate"] for row in curve]
    assert rates[:2] == [1e-5, 1e-5] and rates[2:4] == [2e-3, 2e-3]
    assert rates[4] == rates[5] == pytest.approx(2e-3 * 0.5 * (1 + 2**-0.5))
    assert len(rates) == 8 and rates[6] == pytest.approx(1e-3)


def test_the_residual_moves_the_raw_text_features() -> None:
    """The residual is added before normalisation: half of it at a scale of 0.5, beside text features of any length."""
    text = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    residual = torch.tensor([[0.0, 8.0], [0.0, 0.0]])
    found = taskres.classifier(text, residual, 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
