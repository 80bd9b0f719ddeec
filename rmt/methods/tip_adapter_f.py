"""Tip-Adapter-F (Zhang et al., ECCV 2022): the cache keys of Tip-Adapter, fine-tuned.

As gaopengcuhk/Tip-Adapter main.py: AdamW (eps 1e-4) with cosine decay per step to 0, batches of 256 with the last one
kept, alpha and beta fixed at their initial values while training, then searched. Departures: the last epoch is kept and
the search sees few-shot validation images, where theirs evaluates every epoch on test and reports the best; float32
throughout (in their float16 the second moment underflows, which makes it another method); one cached augmented view per
image and epoch, where theirs crops anew.
"""

import torch
from torch.nn import functional

from rmt import train
from rmt.data import EpochBatches
from rmt.methods import Task, Tuned
from rmt.methods.tip_adapter import LOGITS, answer, cache_keys, cache_logits, one_hot, searched
from rmt.methods.zero_shot import classify

__all__ = ["LOGITS", "answer", "tune"]


def tune(task: Task) -> Tuned:
    """Fine-tune the keys, then search (beta, alpha)."""
    settings, values = task.hyperparameters, one_hot(task.train_labels, len(task.classes))
    views = task.features.views_of(task.shots.train)
    keys = cache_keys(views).requires_grad_()
    optimiser = torch.optim.AdamW(
        [keys], lr=settings["learning_rate"], eps=settings["adam_epsilon"], weight_decay=settings["weight_decay"]
    )
    learner = train.Learner({"keys": keys}, optimiser)
    order = EpochBatches(
        len(views), settings["batch_size"], settings["epochs"], task.seed("feature batches"), drop_last=False
    )

    def step(batch: train.Batch) -> train.Row:
        _, raw, labels = batch
        rate = settings["learning_rate"] * train.cosine(learner.steps, len(order))
        cache = cache_logits(
            functional.normalize(raw, dim=-1), keys, values, settings["initial_beta"], settings["initial_alpha"]
        )
        loss = functional.cross_entropy(classify(raw, task.text, task.logit_scale) + cache, labels)
        return {"loss": learner.descend(loss, rate), "learning_rate": rate}

    curve = train.run(task.progress, learner, train.view_batches(views, task.train_labels, order), step)
    return searched(
        task,
        keys.detach(),
        curve=curve,
        steps=len(curve),
        trainable_parameters=keys.numel(),
        images_seen=settings["epochs"] * len(views),
    )
