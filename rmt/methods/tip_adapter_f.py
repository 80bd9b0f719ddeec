"""Tip-Adapter-F (Zhang et al., ECCV 2022): the cache keys of Tip-Adapter, fine-tuned.

As gaopengcuhk/Tip-Adapter main.py: AdamW (eps 1e-4) with cosine decay per step to 0, batches of 256 with the last one
kept, alpha and beta fixed at their initial values while training, then searched. Departures: the last epoch is kept and
the search sees few-shot validation images, where theirs evaluates every epoch on test and reports the best; float32
throughout (in their float16 the second moment underflows, which makes it another method); one cached augmented view per
image and epoch, where theirs crops anew.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rmt import train
from rmt.data import EpochBatches
from rmt.methods import Task, Tuned
from rmt.methods.tip_adapter import LOGITS, answer, cache_keys, cache_logits, one_hot, searched
from rmt.methods.zero_shot import classify
from rmt.resume import Progress

__all__ = ["LOGITS", "answer", "tune"]


class KeyTuner(train.Learner):
    """The cache keys with their optimiser and the order of the batches.

    Args:
        views: raw features of the augmented views [K, V, d].
        labels: class indices [K].
        text: L2-normalised class text features [C, d].
        logit_scale: CLIP's.
        settings: the hyperparameters of the method.
        seed: decides the order of the images.
    """

    def __init__(
        self,
        views: Tensor,
        labels: Tensor,
        text: Tensor,
        logit_scale: float,
        settings: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.views, self.labels, self.text, self.logit_scale, self.settings = views, labels, text, logit_scale, settings
        self.keys, self.values = cache_keys(views).requires_grad_(), one_hot(labels, len(text))
        self.order = EpochBatches(len(views), settings["batch_size"], settings["epochs"], seed, drop_last=False)
        optimiser = torch.optim.AdamW(
            [self.keys],
            lr=settings["learning_rate"],
            eps=settings["adam_epsilon"],
            weight_decay=settings["weight_decay"],
        )
        super().__init__({"keys": self.keys}, optimiser)

    def logits(self, raw: Tensor, beta: float, alpha: float) -> Tensor:
        """Logits [N, C] for raw features [N, d]."""
        cache = cache_logits(functional.normalize(raw, dim=-1), self.keys, self.values, beta, alpha)
        return classify(raw, self.text, self.logit_scale) + cache

    def step(self, raw: Tensor, labels: Tensor) -> train.Row:
        """One update on raw features [B, d] and labels [B], at the initial beta and alpha; returns the curve's row."""
        rate = self.settings["learning_rate"] * train.cosine(self.steps, len(self.order))
        logits = self.logits(raw, self.settings["initial_beta"], self.settings["initial_alpha"])
        return {"loss": self.descend(functional.cross_entropy(logits, labels), rate), "learning_rate": rate}

    def run(self, progress: Progress) -> list[train.Row]:
        """All epochs; returns the curve."""
        source = train.view_batches(self.views, self.labels, self.order)
        return train.run(progress, self, source, lambda batch: self.step(*batch[1:]))

    def facts(self, curve: list[train.Row]) -> dict[str, Any]:
        """What `Tuned` tells of the training."""
        return {
            "curve": curve,
            "steps": len(curve),
            "trainable_parameters": self.keys.numel(),
            "images_seen": self.settings["epochs"] * len(self.views),
        }


def of(task: Task) -> dict[str, Any]:
    """The arguments of a run's `KeyTuner`."""
    return {
        "views": task.features.views_of(task.shots.train),
        "labels": task.train_labels,
        "text": task.text,
        "logit_scale": task.logit_scale,
        "settings": task.hyperparameters,
        "seed": task.seed("feature batches"),
    }


def tune(task: Task) -> Tuned:
    """Fine-tune the keys, then search (beta, alpha)."""
    tuner = KeyTuner(**of(task))
    curve = tuner.run(task.progress)
    return searched(task, tuner.keys.detach(), **tuner.facts(curve))
