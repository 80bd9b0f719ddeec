"""TaskRes (Yu et al., CVPR 2023): t' = t + alpha x, a residual x [C, d] on the class text features, which starts at 0.

As geekyutao/TaskRes trainers/taskres.py and train_regular.sh: t is the raw text feature, t' is normalised; Adam (weight
decay as L2 in the gradient), a warm-up epoch at 1e-5, then cosine per epoch; the last epoch is kept; alpha is fixed.
Departures: one cached augmented view per image and epoch, crops of the cache's scale, where theirs crops anew (0.08 to
1); on ImageNet t is the one prompt that every method has, where theirs is the mean over eight templates; class names
with spaces for underscores, where theirs keeps them; float32 throughout (theirs computes t in float16).
Left out: their "enhanced base", text features of a projection that was itself trained per dataset and number of shots
and is only downloaded. It has seen few-shot images that need not be those of our sample, and none exists for others.
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

LOGITS = "logits = logit_scale * n(f) @ n(raw_text + residual_scale * residual).T"


def classifier(text: Tensor, residual: Tensor, scale: float) -> Tensor:
    """L2-normalised class weights [C, d] from raw text features [C, d] and the residual [C, d]."""
    return functional.normalize(text + scale * residual, dim=-1)


class ResidualTuner(train.Learner):
    """The residual with their optimiser on it."""

    def __init__(self, text: Tensor, scale: float, logit_scale: float, weight_decay: float) -> None:
        self.text, self.scale, self.logit_scale = text, scale, logit_scale
        self.residual = torch.zeros_like(text).requires_grad_()
        # The learning rate is set before every step.
        super().__init__({"residual": self.residual}, torch.optim.Adam([self.residual], weight_decay=weight_decay))

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] for image features [N, d], not normalised."""
        return classify(features, classifier(self.text, self.residual, self.scale), self.logit_scale)

    def step(self, features: Tensor, labels: Tensor, rate: float) -> float:
        """One update on image features [B, d] and labels [B]; returns the loss."""
        return self.descend(functional.cross_entropy(self.logits(features), labels), rate)


def tune(task: Task) -> Tuned:
    """Train the residual for all epochs; the last step is kept."""
    settings, epochs = task.hyperparameters, task.hyperparameters["epochs"]
    views = task.features.views_of(task.shots.train)
    tuner = ResidualTuner(task.raw_text, settings["residual_scale"], task.logit_scale, settings["weight_decay"])
    order = EpochBatches(len(views), settings["batch_size"], epochs, task.seed("feature batches"))

    def step(batch: train.Batch) -> train.Row:
        epoch, features, labels = batch
        rate = train.warmup_cosine(epoch, epochs, settings["learning_rate"], settings["warmup_learning_rate"])
        return {"loss": tuner.step(features, labels, rate), "learning_rate": rate}

    curve = train.run(task.progress, tuner, train.view_batches(views, task.train_labels, order), step)
    return Tuned(
        adapter={"residual": tuner.residual.detach()},
        curve=curve,
        steps=len(curve),
        trainable_parameters=tuner.residual.numel(),
        images_seen=len(curve) * min(settings["batch_size"], len(views)),
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits with the moved class text features; bound to the classes of the residual."""
    weights = classifier(task.raw_text, adapter["residual"], task.hyperparameters["residual_scale"])
    return lambda images: classify(images.features, weights, task.logit_scale)
