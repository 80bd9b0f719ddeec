"""Tip-Adapter (Zhang et al., ECCV 2022): logits = scale * f W + alpha * exp(-beta (1 - f K)) V.

As gaopengcuhk/Tip-Adapter main.py and utils.py: keys K are the mean of the raw features of the augmented views, then
L2-normalised; values V are one-hot labels; (beta, alpha) by a grid search, beta in the outer loop, only a strictly
better accuracy replaces the best. Departures: the search sees the few-shot validation images that every method has,
never the full validation split and never the test set (theirs uses the whole val split, on ImageNet the test set);
float32 (theirs is float16); the cache never holds an image twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rmt.methods import Answer, Task, Tuned
from rmt.methods.zero_shot import classify

LOGITS = (
    "logits = logit_scale * n(f) @ text.T + alpha * exp(-beta * (1 - n(f) @ keys.T)) @ one_hot(labels), "
    "where one_hot(labels) has one row per key and one column per class"
)


def cache_keys(views: Tensor) -> Tensor:
    """Cache keys [N, d], L2-normalised, from raw features of augmented views [N, V, d]."""
    return functional.normalize(views.mean(1), dim=-1)


def cache_logits(features: Tensor, keys: Tensor, values: Tensor, beta: float, alpha: float) -> Tensor:
    """Logits [N, C] of the cache for L2-normalised features [N, d]; `values` are one-hot [K, C]."""
    return alpha * torch.exp(-beta * (1 - features @ keys.T)) @ values


PART = 4096
"""Images whose logits at all alphas are in memory at a time: of ImageNet's test images they would be 4 GB."""


def grid(scale: float, steps: int) -> list[float]:
    """Search values: 0.1 + i (scale - 0.1) / steps, the upper end excluded."""
    return [index * (scale - 0.1) / steps + 0.1 for index in range(steps)]


def search(
    features: Tensor,
    labels: Tensor,
    zero_shot: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: Sequence[float],
    steps: Sequence[int],
) -> tuple[float, float, Tensor]:
    """Best (beta, alpha) on labelled features, and the number of correct answers at every grid point.

    Args:
        features: L2-normalised [N, d].
        labels: class indices [N].
        zero_shot: CLIP's logits [N, C].
        keys: cache keys [K, d].
        values: one-hot labels [K, C].
        scale: upper ends of (beta, alpha).
        steps: grid sizes of (beta, alpha).
    """
    betas, alphas = grid(scale[0], steps[0]), grid(scale[1], steps[1])
    found = torch.zeros(len(betas), len(alphas), dtype=torch.int32)
    for part in torch.arange(len(features)).split(PART):
        distance = 1 - features[part] @ keys.T
        for row, beta in enumerate(betas):
            cache = torch.exp(-beta * distance) @ values
            logits = zero_shot[part] + torch.tensor(alphas).view(-1, 1, 1) * cache
            found[row] += (logits.argmax(-1) == labels[part]).sum(1)
    # The first maximum in row-major order is what a strictly-better rule with beta outside and alpha inside keeps.
    best = int(found.reshape(-1).argmax())
    return betas[best // len(alphas)], alphas[best % len(alphas)], found


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Cache values [K, C] of the training images' class indices [K]."""
    return functional.one_hot(labels, classes).float()


def searched(task: Task, keys: Tensor, **facts: object) -> Tuned:
    """The tuned model with the given keys and (beta, alpha) searched on the few-shot validation images."""
    settings, values = task.hyperparameters, one_hot(task.train_labels, len(task.classes))
    raw = task.features.of(task.shots.val)
    zero_shot = classify(raw, task.text, task.logit_scale)
    val = functional.normalize(raw, dim=-1)
    scale, steps = settings["search_scale"], settings["search_steps"]
    beta, alpha, _ = search(val, task.val_labels, zero_shot, keys, values, scale, steps)
    return Tuned(
        adapter={"keys": keys, "labels": task.train_labels},
        rule="val",
        chosen={"beta": beta, "alpha": alpha},
        candidates=steps[0] * steps[1],
        **facts,  # type: ignore[arg-type]
    )


def tune(task: Task) -> Tuned:
    """Build the cache and search; nothing is trained."""
    return searched(task, cache_keys(task.features.views_of(task.shots.train)))


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits and the cache's; bound to the classes of the cache."""
    values = one_hot(adapter["labels"], len(task.classes))

    def logits(features: Tensor) -> Tensor:
        raw = functional.normalize(features, dim=-1)
        cache = cache_logits(raw, adapter["keys"], values, chosen["beta"], chosen["alpha"])
        return classify(features, task.text, task.logit_scale) + cache

    return lambda images: logits(images.features)
