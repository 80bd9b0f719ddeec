"""LP++: its start, its step sizes and its selection against numbers worked out by hand or by brute force."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmt.methods import lp_plus_plus
from rmt.methods.lp_plus_plus import alpha_rate, blend, initial_alpha, initial_weight, weight_rate
from rmt.resume import Interrupted, Progress
from tests import toy


def data(seed: int, images: int = 18, classes: int = 3, width: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """L2-normalised features with a common direction, as CLIP's have, labels, L2-normalised text; float64."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(images, width, generator=random, dtype=torch.float64) + torch.ones(width)
    text = torch.randn(classes, width, generator=random, dtype=torch.float64) + 0.5
    labels = torch.randint(0, classes, (images,), generator=random)
    return functional.normalize(features, dim=-1), labels, functional.normalize(text, dim=-1)


def loss_of(features: Tensor, labels: Tensor, text: Tensor, weight: Tensor, alpha: Tensor) -> Tensor:
    return functional.cross_entropy(blend(features, text, weight, torch.zeros(len(text)).double(), alpha), labels)


def test_the_start_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels, text = torch.tensor([0, 0, 1]), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    torch.testing.assert_close(initial_weight(features, labels, 2), torch.tensor([[1.6, 0.8], [0.0, 1.0]]))
    # Cosines with the own class: 0.8 and 0.96 in class 0, 0.8 in class 1; means 0.88 and 0.8.
    assert initial_alpha(features, labels, text, 250.0) == pytest.approx(250 * 0.84)
    # F'F = [[1.36, 0.48], [0.48, 1.64]], whose larger eigenvalue is 1.5 + sqrt(0.14^2 + 0.48^2) = 2.
    assert weight_rate(features) == pytest.approx(4 * 3 / 2.0)
    # Squared cosines summed over images: 0.64 + 0.9216 + 0.36 for class 0, 0.36 + 1 + 0.64 = 2 for class 1.
    assert alpha_rate(features, text) == pytest.approx(3 / (4 * 2.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_the_bounds_hold_for_the_curvature_by_brute_force(seed: int, size: float) -> None:
    """Largest eigenvalues of the whole Hessian, at a random point, against those that the rates stand for."""
    features, labels, text = data(seed)
    random = torch.Generator().manual_seed(100 + seed)
    weight = size * torch.randn(3, 5, generator=random, dtype=torch.float64)
    alpha = size * torch.randn(3, generator=random, dtype=torch.float64)
    hessian = torch.func.hessian(lambda one: loss_of(features, labels, text, one.view(3, 5), alpha))(weight.flatten())
    blocks = hessian.view(3, 5, 3, 5)
    rate = weight_rate(features)
    for one in range(3):
        assert torch.linalg.eigvalsh(blocks[one, :, one])[-1] <= 1 / rate + 1e-12
    assert torch.linalg.eigvalsh(hessian)[-1] <= 2 / rate + 1e-12
    hessian = torch.func.hessian(lambda one: loss_of(features, labels, text, weight, one))(alpha)
    assert torch.linalg.eigvalsh(hessian)[-1] <= 1 / (8 * alpha_rate(features, text)) + 1e-12


def test_the_bound_of_the_weights_is_reached() -> None:
    """Two classes that nothing tells apart: the curvature is exactly that of the bound."""
    features, labels, text = data(0, classes=2)
    zero = torch.zeros(2, dtype=torch.float64)
    hessian = torch.func.hessian(lambda one: loss_of(features, labels, text, one.view(2, 5), zero))(zero.new_zeros(10))
    assert float(torch.linalg.eigvalsh(hessian)[-1]) == pytest.approx(2 / weight_rate(features), rel=1e-12)


def descend(features: Tensor, labels: Tensor, text: Tensor, weight: Tensor, alpha: Tensor, factor: float) -> np.ndarray:
    """Losses of 300 epochs of plain block descent: W at `factor` times its rate, alpha in every tenth epoch."""
    losses = []
    for epoch in range(1, 301):
        weight.requires_grad_(), alpha.requires_grad_()
        loss = loss_of(features, labels, text, weight, alpha)
        losses.append(float(loss.detach()))
        weight = weight.detach() - factor * weight_rate(features) * torch.autograd.grad(loss, weight)[0]
        if epoch % 10 == 0:
            loss = loss_of(features, labels, text, weight, alpha)
            losses.append(float(loss.detach()))
            alpha = alpha.detach() - alpha_rate(features, text) * torch.autograd.grad(loss, alpha)[0]
    return np.array(losses)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_never_rises_at_the_derived_rates(seed: int) -> None:
    features, labels, text = data(seed, images=24, classes=4)
    weight = initial_weight(features.float(), labels, 4).double()
    alpha = torch.full((4,), initial_alpha(features.float(), labels, text.float(), 250.0)).double()
    losses = descend(features, labels, text, weight, alpha, 1.0)
    assert np.diff(losses).max() <= 1e-12 and losses[-1] < 0.5 * losses[0]


def test_a_larger_rate_can_raise_the_loss() -> None:
    """One image twice, under two labels: around the minimum the loss is the bound's parabola."""
    features = functional.normalize(torch.ones(2, 5, dtype=torch.float64), dim=-1)
    labels, text = torch.tensor([0, 1]), torch.zeros(2, 5, dtype=torch.float64)
    start = 0.01 * torch.stack([features[0], -features[0]])
    apart = text + torch.tensor([[1e-9], [0.0]])  # alpha's own rate needs a cosine that is not 0
    zero = torch.zeros(2, dtype=torch.float64)
    assert np.diff(descend(features, labels, apart, start.clone(), zero.clone(), 1.0)).max() <= 1e-12
    assert np.diff(descend(features, labels, apart, start.clone(), zero.clone(), 1.05)).max() > 1e-6


def by_hand(task, epochs: int, summed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """The recipe in numpy's float64 with its gradients written out; (W, b, alpha, losses)."""
    settings = task.hyperparameters
    features = task.features.views[:, 0].double().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    text, labels = task.text.double().numpy(), task.train_labels.numpy()
    images, classes = len(features), len(text)
    target = np.eye(classes)[labels]
    cosines = features @ text.T
    weight = target.T @ features
    alpha = np.full(classes, 250 * np.mean([cosines[labels == one, one].mean() for one in range(classes)]))
    bound = 1 / math.sqrt(features.shape[1])
    bias = torch.empty(classes).uniform_(-bound, bound, generator=task.generator("lp_plus_plus bias")).double().numpy()
    rate = 4 * images / np.linalg.norm(features, 2) ** 2
    momentum = [np.zeros_like(weight), np.zeros_like(bias)]
    slope, losses = np.zeros(classes), []
    for epoch in range(1, epochs + 1):
        logits = features @ weight.T + bias + alpha * cosines
        odds = np.exp(logits - logits.max(1, keepdims=True))
        share = odds / odds.sum(1, keepdims=True)
        losses.append(-np.log(share[np.arange(images), labels]).mean())
        error = (share - target) / images
        momentum[0] = settings["momentum"] * momentum[0] + error.T @ features
        momentum[1] = settings["momentum"] * momentum[1] + error.sum(0)
        slope = (slope if summed else 0) + (error * cosines).sum(0)
        weight, bias = weight - rate * momentum[0], bias - rate * momentum[1]
        if epoch % 10 == 0:
            alpha = alpha - images / (4 * (cosines**2).sum(0).max()) * slope
    return weight, bias, alpha, losses


@pytest.mark.parametrize("summed", [True, False])
def test_thirty_epochs_against_the_recipe_written_out(summed: bool) -> None:
    task = toy.task("lp_plus_plus", epochs=30, sum_alpha_gradients=summed)
    features = functional.normalize(task.features.views[:, 0], dim=-1)
    val = functional.normalize(task.features.of(task.shots.val), dim=-1), task.val_labels
    generator = task.generator("lp_plus_plus bias")
    blocks = lp_plus_plus.Blocks(features, task.train_labels, task.text, val, task.hyperparameters, generator)
    start = float(blocks.alpha.detach()[0])
    losses = [blocks.step() for _ in range(30)]
    weight, bias, alpha, expected = by_hand(task, 30, summed)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=2e-4)
    np.testing.assert_allclose(blocks.weight.detach(), weight, rtol=0, atol=2e-4)
    np.testing.assert_allclose(blocks.bias.detach(), bias, rtol=0, atol=2e-4)
    np.testing.assert_allclose(blocks.alpha.detach(), alpha, rtol=0, atol=2e-4)
    assert np.abs(alpha - start).max() > 0.02
    assert losses[-1] < 0.1 * losses[0]


def test_the_later_of_equally_good_epochs_is_kept() -> None:
    """A run that ends with the chosen epoch learns the same; every longer one is worse on the validation images."""
    task = toy.task("lp_plus_plus", classes=6, spread=0.6, epochs=60)
    tuned = lp_plus_plus.tune(task)
    chosen = tuned.chosen["epoch"]
    assert 1 < chosen < 60 and tuned.rule == "val" and tuned.checkpoint == "best" and tuned.candidates == 60
    again = lp_plus_plus.tune(toy.task("lp_plus_plus", classes=6, spread=0.6, epochs=chosen))
    assert again.chosen["epoch"] == chosen
    assert all(torch.equal(again.adapter[name], value) for name, value in tuned.adapter.items())

    def correct(epochs: int) -> int:
        shorter = toy.task("lp_plus_plus", classes=6, spread=0.6, epochs=epochs)
        tuned = lp_plus_plus.tune(shorter)
        val = functional.normalize(shorter.features.of(shorter.shots.val), dim=-1)
        return int((blend(val, shorter.text, **tuned.adapter).argmax(1) == shorter.val_labels).sum())

    assert correct(1) <= correct(chosen) == correct(60)


def test_an_interrupted_run_remembers_its_best_epoch_and_alphas_gradients(tmp_path) -> None:
    whole = lp_plus_plus.tune(toy.task("lp_plus_plus", classes=6, spread=0.6, epochs=60))
    task = toy.task("lp_plus_plus", classes=6, spread=0.6, epochs=60)
    task.progress = toy.StoppedAt(tmp_path, 35)
    with pytest.raises(Interrupted):
        lp_plus_plus.tune(task)
    task.progress = Progress(tmp_path, 1e9)
    rest = lp_plus_plus.tune(task)
    assert rest.chosen == whole.chosen and rest.curve == whole.curve and whole.chosen["epoch"] < 35
    assert all(torch.equal(rest.adapter[name], value) for name, value in whole.adapter.items())


def test_its_size() -> None:
    tuned = lp_plus_plus.tune(toy.task("lp_plus_plus", classes=7, width=512, epochs=2))
    assert tuned.trainable_parameters == 7 * 512 + 2 * 7
