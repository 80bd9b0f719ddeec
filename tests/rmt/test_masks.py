import pytest
import torch
from torch import nn

from rmt import masks, registry
from rmt.gradient_dropout import drop_gradient, keep_probability
from rmt.methods.mask_tuning import MaskTuner
from rmt.schedule import planned_epochs

RELEASED = {"learning_rate": 8e-5, "epochs": 30, "minimum_travel": 0.0}


def test_keep_probability_by_hand() -> None:
    a = torch.tensor([1.0, -1.0, 1.0, -3.0, 1.0, 0.0, 2.0])
    b = torch.tensor([3.0, -0.5, -1.0, 1.0, 0.0, 0.0, -6.0])
    # same sign: 1; opposite: |a| / (|a| + |b|); both zero: 1/2
    expected = torch.tensor([1.0, 1.0, 0.5, 0.75, 1.0, 0.5, 0.25])
    torch.testing.assert_close(keep_probability(a, b), expected, rtol=0, atol=1e-7)


def test_tiny_gradients_feel_the_epsilon() -> None:
    a, b = torch.tensor([1e-8]), torch.tensor([0.0])
    assert float(keep_probability(a, b)) == pytest.approx(0.75)


@pytest.mark.parametrize(("level", "factor"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0)])
def test_dropped_entries_are_scaled_by_one_minus_level(level: float, factor: float) -> None:
    a, b = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([-2.0, -2.0, 2.0])
    uniform = torch.tensor([0.499, 0.5, 0.999])  # P is 1/2, 1/2, 1; kept where P > draw, strictly
    found = drop_gradient(a, b, uniform, level)
    torch.testing.assert_close(found, torch.tensor([2.0, 2.0 * factor, 2.0]))


def test_the_share_of_kept_entries_is_the_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.full((100_000,), 1.0), torch.full((100_000,), -3.0)
    kept = drop_gradient(a, b, torch.rand(a.shape, generator=generator), 1.0)
    assert float(kept.mean()) == pytest.approx(0.25, abs=0.005)


def _on_meta(architecture: str) -> nn.Module:
    """The image tower of a registered architecture, without memory for its weights."""
    import open_clip

    with torch.device("meta"):
        return open_clip.CLIP(**open_clip.get_model_config(architecture)).visual


def _counts(weights: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: weight.numel() for name, weight in weights.items()}


@pytest.mark.parametrize(("method", "expected"), [("r_amt", 28_901_376), ("r_mmt", 56_623_104), ("r_pmt", 85_524_480)])
def test_the_scores_of_vit_b16_are_the_authors(method: str, expected: int) -> None:
    targets = registry.METHODS[method].defaults["targets"].resolve("imagenet", 16)
    assert sum(_counts(masks.maskable(_on_meta("ViT-B-16-quickgelu"), targets)).values()) == expected


def test_the_tensors_of_vit_b16_are_the_authors() -> None:
    tower = _on_meta("ViT-B-16")
    blocks = [f"transformer.resblocks.{index}" for index in range(12)]
    attention = {"conv1.weight": 589_824}
    for block in blocks:
        attention |= {f"{block}.attn.in_proj_weight": 1_769_472, f"{block}.attn.out_proj.weight": 589_824}
    mlp = {f"{block}.mlp.{layer}.weight": 2_359_296 for block in blocks for layer in ("c_fc", "c_proj")}
    assert _counts(masks.maskable(tower, "attention")) == attention and len(attention) == 25
    assert _counts(masks.maskable(tower, "mlp")) == mlp
    assert _counts(masks.maskable(tower, "all")) == attention | mlp


@pytest.mark.parametrize(
    ("architecture", "width", "layers", "patch"),
    [("ViT-B-32", 768, 12, 32), ("ViT-B-16", 768, 12, 16), ("ViT-L-14", 1024, 24, 14)],
)
def test_other_vision_transformers_by_formula(architecture: str, width: int, layers: int, patch: int) -> None:
    tower = _on_meta(architecture)
    attention, mlp = (sum(_counts(masks.maskable(tower, targets)).values()) for targets in ("attention", "mlp"))
    assert attention == 3 * patch**2 * width + layers * 4 * width**2
    assert mlp == layers * 8 * width**2


@pytest.mark.parametrize(("architecture", "expected"), [("RN50", 38_154_080), ("RN101", None)])
def test_the_tensors_of_a_resnet_are_the_authors(architecture: str, expected: int | None) -> None:
    """Every convolution, stem and downsampling included, and the pool's four projections; norms and biases never."""
    tower = _on_meta(architecture)
    found = _counts(masks.maskable(tower))
    convolutions = {name: one.numel() for name, one in tower.named_parameters() if one.dim() == 4}
    projections = {f"attnpool.{part}_proj.weight" for part in "qkvc"}
    assert set(found) == set(convolutions) | projections
    assert {"conv1.weight", "conv2.weight", "conv3.weight", "layer2.0.downsample.0.weight"} <= set(found)
    assert expected in (None, sum(found.values()))
    # A ResNet has no MLP: the setting of the targets has no effect, as in the released code.
    assert all(_counts(masks.maskable(tower, targets)) == found for targets in ("mlp", "all"))


def test_a_tower_without_attention_is_refused() -> None:
    with pytest.raises(masks.NotMaskable, match="Sequential has no attention"):
        masks.maskable(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="attention, mlp, all"):
        masks.maskable(nn.Linear(2, 2), "heads")


def test_packing_keeps_every_bit_and_compresses() -> None:
    generator = torch.Generator().manual_seed(3)
    found = {
        "first": torch.rand(300, 1001, generator=generator) > 0.02,
        "second": torch.tensor([True, False, True]),
    }
    packed = masks.pack(found)
    unpacked = masks.unpack(packed)
    assert list(unpacked) == ["first", "second"]
    assert all(torch.equal(unpacked[name], mask) for name, mask in found.items())
    assert packed["mask.first"].numel() < 300 * 1001 / 8 / 3
    assert masks.count(found) == (300 * 1001 + 3, int((~found["first"]).sum()) + 1)
    packed["shapes"] = torch.frombuffer(bytearray(b'{"first": [300, 2000], "second": [3]}'), dtype=torch.uint8)
    with pytest.raises(ValueError, match="mask first"):
        masks.unpack(packed)


def test_folding_multiplies_the_weights() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    masks.fold(layer, {"weight": torch.tensor([[True, False], [False, True]])})
    assert layer.weight.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    with pytest.raises(KeyError):
        masks.fold(layer, {"bias": torch.tensor([True])})


@pytest.mark.parametrize(
    ("steps_per_epoch", "travel", "epochs"),
    [(1, 0.0, 30), (5, 0.0, 30), (1, 0.01, 249), (5, 0.01, 49), (50, 0.01, 30)],
)
def test_the_floor_on_the_steps(steps_per_epoch: int, travel: float, epochs: int) -> None:
    """Sum of the rates of E epochs: rate * steps per epoch * (E + 1) / 2."""
    assert planned_epochs(RELEASED | {"minimum_travel": travel}, steps_per_epoch) == epochs


def test_the_released_schedule_cannot_flip_below_five_steps_per_epoch() -> None:
    """The bound of the low-shot trap: a gradient that never changes its sign moves a score by the sum of the rates."""
    from rmt.train import cosine

    for steps_per_epoch, can_flip in ((1, False), (2, False), (3, False), (4, False), (5, True)):
        score = torch.tensor([0.01])
        optimiser = torch.optim.Adam([score], lr=8e-5)
        for epoch in range(30):
            optimiser.param_groups[0]["lr"] = 8e-5 * cosine(epoch, 30)
            for _ in range(steps_per_epoch):
                score.grad = torch.ones(1)
                optimiser.step()
        assert (float(score) <= 0.005) == can_flip, steps_per_epoch


def _tuner(golden, level: float) -> tuple[MaskTuner, torch.Tensor, torch.Tensor]:
    data = golden("r_amt_s0_inputs")
    generator = torch.Generator().manual_seed(5)
    tuner = MaskTuner(data.tower(), data["class_text_features"], 100.0, generator, learning_rate=2e-3, level=level)
    return tuner, data["images"], data["labels"]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_resumed_run_ends_with_the_scores_of_an_unbroken_one(golden, level: float) -> None:
    unbroken, images, labels = _tuner(golden, level)
    for step in range(6):
        unbroken.step(images[step], labels[step])
    first, _, _ = _tuner(golden, level)
    for step in range(3):
        first.step(images[step], labels[step])
    second, _, _ = _tuner(golden, level)
    second.load_state(first.state())
    for step in range(3, 6):
        second.step(images[step], labels[step])
    assert second.steps == unbroken.steps == 6
    for name, score in unbroken.scores.items():
        assert torch.equal(score, second.scores[name]), name


def test_without_gradient_dropout_the_task_gradient_is_applied_and_no_teacher_runs(golden) -> None:
    tuner, images, labels = _tuner(golden, 0.0)
    calls: list[int] = []
    tuner.tower.register_forward_hook(lambda *_: calls.append(1))
    report = tuner.step(images[0], labels[0])
    assert len(calls) == 1 and report.teacher_gradient is None and report.teacher_cross_entropy is None
    for name, gradient in report.task_gradient.items():
        assert torch.equal(gradient, report.applied_gradient[name])


def test_straight_through_gradient_is_the_weight_times_the_gradient_of_the_effective_weight(golden) -> None:
    """Against autograd through an explicit threshold with identity derivative."""
    tuner, images, labels = _tuner(golden, 0.0)
    tuner.mask_loss_weight = 0.0
    scores = {name: score.clone().requires_grad_() for name, score in tuner.scores.items()}
    effective = {
        name: weight * ((scores[name] > 0.005).float() + scores[name] - scores[name].detach())
        for name, weight in tuner.weights.items()
    }
    loss = nn.functional.cross_entropy(tuner.logits(images[0], effective), labels[0])
    expected = torch.autograd.grad(loss, list(scores.values()))
    report = tuner.step(images[0], labels[0])
    for gradient, name in zip(expected, scores, strict=True):
        torch.testing.assert_close(report.task_gradient[name], gradient, rtol=1e-5, atol=1e-8)
