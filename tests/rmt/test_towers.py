"""The short forward pass gives the features and gradients of open_clip's own."""

import pytest
import torch

from rmt.towers import Tower


@pytest.mark.parametrize(("name", "short"), [("r_amt_s0_inputs", True), ("r_amt_resnet_s0_inputs", False)])
def test_features_and_gradients_are_open_clips(golden, name: str, short: bool) -> None:
    data = golden(name)
    tower = data.tower()
    assert Tower(tower).short is short
    found = []
    for forward in (tower, Tower(tower)):
        tower.requires_grad_(True).zero_grad()
        features = forward(data["eval_images"])
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        found.append((features.detach(), {key: weight.grad.clone() for key, weight in tower.named_parameters()}))
    (features, gradients), (short_features, short_gradients) = found
    torch.testing.assert_close(short_features, features, rtol=0, atol=5e-6)
    assert float(features.abs().max()) > 0.5
    for key, gradient in gradients.items():
        assert float((gradient - short_gradients[key]).abs().max()) <= 2e-5 * max(1.0, float(gradient.abs().max())), key


def test_the_tiny_clip_takes_the_short_way() -> None:
    from rmt import backbones

    clip = backbones.load("tiny_clip")
    assert Tower(clip.visual).short
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        expected = clip.model.encode_image(clip.normalise(images))
    torch.testing.assert_close(clip.features(images), expected, rtol=0, atol=5e-6)
