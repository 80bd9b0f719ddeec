"""The dimensions behind the cost model, against open_clip's own models with random weights."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import rmt.torchvision_import  # noqa: F401

import open_clip  # isort: skip

from rmt import architectures, backbones, masks, registry
from rmt.architectures import ARCHITECTURES
from rmt.methods.mask_tuning import MaskTuner
from rmt.towers import Tower


def built(name: str) -> torch.nn.Module:
    """An architecture without weights: operations are counted on shapes."""
    open_clip.add_model_config(backbones.TINY_CONFIG)
    with torch.device("meta"):
        return open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta").eval()


def counted(work) -> float:
    """Operations by torch's counter; attention as plain products, which it counts on every device."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


@pytest.fixture(params=["tiny_clip", "ViT-B-16", "ViT-B-32", "ViT-L-14", "RN50", "RN101", "ViT-B-16-SigLIP"])
def pair(request):
    return ARCHITECTURES[request.param], built(request.param)


def test_every_registered_backbone_has_dimensions() -> None:
    for entry in registry.BACKBONES.values():
        assert entry.architecture.removesuffix("-quickgelu") in ARCHITECTURES
    assert architectures.of("EVA02-E-14") == ARCHITECTURES[architectures.LARGEST]


def test_parameters_are_those_of_open_clip(pair) -> None:
    known, model = pair
    assert known.weights == sum(weight.numel() for weight in model.parameters())


def test_forward_passes_cost_what_torch_counts(pair) -> None:
    known, model = pair
    side = model.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    images = torch.empty(2, 3, side, side, device="meta")
    assert known.image.forward == pytest.approx(counted(lambda: Tower(model.visual)(images)) / 2, rel=0.02)
    assert known.image.whole == pytest.approx(counted(lambda: model.visual(images)) / 2, rel=0.02)
    prompts = torch.zeros(2, known.text.tokens, dtype=torch.long, device="meta")
    assert known.text.forward(known.text.tokens) == pytest.approx(
        counted(lambda: model.encode_text(prompts)) / 2, rel=0.02
    )


@pytest.mark.parametrize("targets", architectures.TARGETS)
@pytest.mark.parametrize("name", ["tiny_clip", "ViT-B-32", "RN50"])
def test_a_step_of_mask_tuning_costs_what_torch_counts(name: str, targets: str) -> None:
    """Student, teacher, and two backward passes to the masked weights only."""
    known, model = ARCHITECTURES[name], built(name).requires_grad_(False)
    tower, side = Tower(model.visual), 32 if name == "tiny_clip" else 224
    chosen = masks.maskable(model.visual, targets)
    assert sum(weight.numel() for weight in chosen.values()) == known.image.masks(targets)

    def step() -> None:
        leaves = {f"tower.{key}": weight.clone().requires_grad_() for key, weight in chosen.items()}
        images = torch.empty(2, 3, side, side, device="meta")
        features = torch.func.functional_call(tower, leaves, (images,))
        torch.autograd.grad(features.sum(), list(leaves.values()))

    assert known.image.forward + known.image.backward(targets) == pytest.approx(counted(step) / 2, rel=0.03)


def test_the_counted_step_is_the_real_one() -> None:
    """`MaskTuner` itself on the tiny CLIP: with a teacher two backward passes and two forward, without one of each."""
    clip = backbones.load("tiny_clip")
    image = ARCHITECTURES["tiny_clip"].image
    text = torch.nn.functional.normalize(torch.ones(4, 128), dim=-1)
    for level, passes in ((1.0, 2), (0.0, 1)):
        tuner = MaskTuner(clip.visual, text, 100.0, torch.Generator(), level=level)
        images, labels = torch.zeros(3, 3, 32, 32), torch.tensor([0, 1, 2])
        found = counted(lambda tuner=tuner, images=images, labels=labels: tuner.step(images, labels)) / 3
        assert passes * (image.forward + image.backward("attention")) == pytest.approx(found, rel=0.03)


def kept(own: list[torch.Tensor], work) -> float:
    """Numbers that autograd keeps for a backward pass, the weights `own` aside."""
    held: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in own}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    assert result is not None
    return sum(held.values()) / 4


@pytest.mark.parametrize("name", ["tiny_clip", "ViT-B-32-quickgelu", "RN50-quickgelu"])
def test_kept_activations_are_those_that_autograd_keeps(name: str) -> None:
    """At most a third more: memory is asked for by it, and must not be too little."""
    open_clip.add_model_config(backbones.TINY_CONFIG)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval().requires_grad_(False)
    known, tower = architectures.of(name), Tower(model.visual)
    images = torch.zeros(1, 3, *([32, 32] if name == "tiny_clip" else [224, 224]))
    for targets in architectures.TARGETS:
        leaves = {
            f"tower.{key}": w.clone().requires_grad_() for key, w in masks.maskable(model.visual, targets).items()
        }
        own = [*model.parameters(), *leaves.values()]
        found = kept(own, lambda leaves=leaves: torch.func.functional_call(tower, leaves, (images,)))
        assert 1.0 <= known.image.kept(targets) / found <= 1.33, targets
    prompts = torch.zeros(1, 12, known.text.width, requires_grad=True)
    found = kept([*model.parameters()], lambda: model.transformer(prompts, attn_mask=model.attn_mask[:12, :12]))
    assert 1.0 <= known.text.kept(12) / found <= 1.33
