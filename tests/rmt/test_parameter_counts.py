"""Trainable parameters of the rivals on CLIP ViT-B/16 (features of 512), without its weights."""

from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch

from rmt import registry
from rmt.data import Sample
from rmt.methods import Task, coop
from rmt.methods import tune as tune_method

CLASSES = tuple(f"class {index}" for index in range(10))
WIDTH = 512


def _settings(method: str, shots: int, **changes: Any) -> dict[str, Any]:
    found = registry.METHODS[method].defaults
    return {name: default.resolve("eurosat", shots) for name, default in found.items()} | changes


def _sample(shots: int) -> Sample:
    items = tuple((f"{label}/{index}", label) for label in range(len(CLASSES)) for index in range(shots))
    return Sample("eurosat", shots, 1, CLASSES, "a photo of a {}.", True, "", "", items, items)


class _RandomFeatures:
    """Stands for cached features: random ones of the right shapes."""

    def of(self, items: Any) -> torch.Tensor:
        return torch.randn(len(items), WIDTH, generator=torch.Generator().manual_seed(0))

    def views_of(self, items: Any) -> torch.Tensor:
        return torch.randn(len(items), 2, WIDTH, generator=torch.Generator().manual_seed(1))


def _task(settings: dict[str, Any], shots: int, clip: Any = None) -> Task:
    text = torch.randn(len(CLASSES), WIDTH, generator=torch.Generator().manual_seed(2))
    return Task(
        sample=_sample(shots),
        classes=CLASSES,
        template="a photo of a {}.",
        hyperparameters=settings,
        logit_scale=100.0,
        read_features=_RandomFeatures,  # type: ignore[arg-type]
        read_text=lambda: text,
        clip=clip,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 8_192), ({"context_vectors": 4}, 2_048), ({"class_specific": True}, len(CLASSES) * 8_192)],
)
def test_coops_context_on_vit_b16(changes: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
    clip = SimpleNamespace(model=model, device=torch.device("cpu"))
    assert coop.initial_context(_task(_settings("coop", 16, **changes), 16, clip)).numel() == expected


@pytest.mark.parametrize(
    ("method", "shots", "expected"),
    [
        ("clip_adapter", 1, 2 * 512 * 128),
        ("tip_adapter", 4, 0),
        ("tip_adapter_f", 4, len(CLASSES) * 4 * 512),
        ("linear_probe", 1, len(CLASSES) * 512 + len(CLASSES)),
        ("zero_shot", 1, 0),
    ],
)
def test_methods_on_features_of_vit_b16(method: str, shots: int, expected: int) -> None:
    short = {"epochs": 1, "search_steps": (2, 2), "sweep": (1.0,), "bisection_steps": 1}
    settings = _settings(method, shots)
    tuned = tune_method(method, _task(settings | {key: short[key] for key in short if key in settings}, shots))
    assert tuned.trainable_parameters == expected
