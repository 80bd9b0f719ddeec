"""CLIP-Adapter (Gao et al., IJCV 2024), visual branch: f' = r A(f) + (1 - r) f, A(f) = ReLU(W2 ReLU(W1 f)).

As gaopengcuhk/CLIP-Adapter clip_adapter.py: f is the image feature before normalisation, no biases, reduction 4,
torch's default initialisation, cross-entropy at CLIP's temperature. They publish no learning rate, epochs or ratios per
dataset; ours: AdamW with cosine decay per step on the cached augmented views (one view per image and epoch), the
residual ratio searched on the few-shot validation images (their code fixes 0.2), first wins ties. Their hard-coded
width of 1024 is the tower's width here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rmt import train
from rmt.data import EpochBatches
from rmt.methods import Answer, Task, Tuned
from rmt.methods.zero_shot import classify

LOGITS = "logits = logit_scale * n(g) @ text.T, where g = ratio * relu(relu(f @ down.T) @ up.T) + (1 - ratio) * f"


def adapt(features: Tensor, down: Tensor, up: Tensor, ratio: float) -> Tensor:
    """Adapted features [N, d] from features [N, d] and the weights `down` [d/r, d] and `up` [d, d/r]."""
    hidden = functional.relu(functional.linear(features, down))
    return ratio * functional.relu(functional.linear(hidden, up)) + (1 - ratio) * features


def _initial(task: Task, width: int) -> tuple[Tensor, Tensor]:
    hidden = width // task.hyperparameters["reduction"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed("clip_adapter init"))
        return (
            torch.nn.Linear(width, hidden, bias=False).weight.detach().clone(),
            torch.nn.Linear(hidden, width, bias=False).weight.detach().clone(),
        )


def _train(task: Task, views: Tensor, ratio: float) -> tuple[Tensor, Tensor, list[dict[str, float]]]:
    settings = task.hyperparameters
    down, up = (weight.requires_grad_() for weight in _initial(task, views.shape[-1]))
    order = EpochBatches(
        len(views), settings["batch_size"], settings["epochs"], task.seed("feature batches"), drop_last=False
    )
    optimiser = torch.optim.AdamW([down, up], lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    learner = train.Learner({"down": down, "up": up}, optimiser)

    def step(batch: train.Batch) -> train.Row:
        _, features, labels = batch
        rate = settings["learning_rate"] * train.cosine(learner.steps, len(order))
        logits = classify(adapt(features, down, up, ratio), task.text, task.logit_scale)
        return {"loss": learner.descend(functional.cross_entropy(logits, labels), rate), "learning_rate": rate}

    source = train.view_batches(views, task.train_labels, order)
    curve = train.run(task.progress, learner, source, step, stage=f"ratio-{ratio}")
    return down.detach(), up.detach(), curve


def tune(task: Task) -> Tuned:
    """Train one adapter per ratio and keep the best on the few-shot validation images."""
    views, val = task.features.views_of(task.shots.train), task.features.of(task.shots.val)
    best = None
    for ratio in task.hyperparameters["ratios"]:
        down, up, curve = _train(task, views, ratio)
        answers = classify(adapt(val, down, up, ratio), task.text, task.logit_scale).argmax(1)
        correct = int((answers == task.val_labels).sum())
        if best is None or correct > best[0]:
            best = (correct, ratio, down, up, curve)
    assert best is not None, "the schema refuses an empty list of ratios"
    _, ratio, down, up, curve = best
    return Tuned(
        adapter={"down": down, "up": up},
        chosen={"ratio": ratio},
        curve=curve,
        steps=len(curve),
        trainable_parameters=down.numel() + up.numel(),
        images_seen=task.hyperparameters["epochs"] * len(views),
        rule="val" if len(task.hyperparameters["ratios"]) > 1 else "fixed",
        candidates=len(task.hyperparameters["ratios"]),
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits of adapted image features; any classes will do."""
    down, up, ratio = adapter["down"], adapter["up"], chosen["ratio"]
    return lambda images: classify(adapt(images.features, down, up, ratio), images.text, task.logit_scale)
