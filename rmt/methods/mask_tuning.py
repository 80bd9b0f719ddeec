"""Regularized Mask Tuning (Zheng et al., ICCV 2023, arXiv 2307.15049): R-AMT, and AMT without gradient dropout.

Per step, on one batch of augmented images and fixed class text features:

    a = d/ds [ CE(student, labels) + w sum_t ||s_t||_2 ]       s: scores, t: score tensors
    b = d/ds   CE(student, softmax(frozen model's logits))
    s <- Adam(s, drop_gradient(a, b))                           cosine learning rate per epoch, no weight decay

As the released code (wuw2019/R-AMT, trainers/masktuning.py), minus its defects: the teacher runs without gradients and
not at all when the level is 0; nothing is selected on test; scores, optimiser and step can be saved and resumed; masks
are folded into the weights before evaluation. Departure: `minimum_travel` adds epochs until the scores can cross the
threshold, which the released schedule does not allow at few shots; `r_amt_released` sets it to 0.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmt import masks, train
from rmt.data import EpochBatches
from rmt.gradient_dropout import drop_gradient
from rmt.images import TrainingImages
from rmt.methods import Answer, Foundation, Task, Tuned
from rmt.methods.zero_shot import LOGITS, classify
from rmt.schedule import planned_epochs
from rmt.towers import Tower

__all__ = ["LOGITS", "MaskTuner", "answer", "fold", "planned_epochs", "stand_on", "tune"]


@dataclass(frozen=True)
class StepReport:
    """What one step saw before its update: cross-entropies in nats, mask loss, gradients by score tensor."""

    cross_entropy: float
    teacher_cross_entropy: float | None
    mask_loss: float
    task_gradient: Mapping[str, Tensor]
    teacher_gradient: Mapping[str, Tensor] | None
    applied_gradient: Mapping[str, Tensor]


class MaskTuner(train.Learner):
    """Scores on a frozen image tower, and the step that trains them.

    The tower is never changed: effective weights enter its forward pass by `torch.func.functional_call`.
    """

    def __init__(
        self,
        tower: nn.Module,
        text: Tensor,
        logit_scale: float,
        generator: torch.Generator,
        *,
        targets: str = "attention",
        initial_score: float = 0.01,
        threshold: float = 0.005,
        mask_loss_weight: float = 1e-4,
        learning_rate: float = 8e-5,
        level: float = 1.0,
        short: bool = True,
    ) -> None:
        """Prepare scores and Adam.

        Args:
            tower: image tower; must be frozen and in eval mode, so that student and teacher see the same norms.
            text: L2-normalised class text features [C, d].
            logit_scale: factor on cosines.
            generator: draws of the gate, on the CPU.
            targets: which weights carry masks, see `rmt.masks.maskable`.
            initial_score: value of every score at the start.
            threshold: a weight counts while its score exceeds this.
            mask_loss_weight: factor on the sum of the L2 norms of the score tensors.
            learning_rate: of Adam; `set_rate` changes it.
            level: gradient dropout level; 0 needs no teacher and runs none.
            short: leave out of the forward pass what does not reach the features, see `rmt.towers`.
        """
        self.tower, self.text, self.logit_scale = Tower(tower, short), text, logit_scale
        self.threshold, self.mask_loss_weight, self.level = threshold, mask_loss_weight, level
        self.weights = masks.maskable(tower, targets)
        self.scores = masks.initial_scores(self.weights, initial_score)
        super().__init__(self.scores, torch.optim.Adam(list(self.scores.values()), lr=learning_rate), generator)

    def masks(self) -> dict[str, Tensor]:
        """Boolean masks of the present scores."""
        return masks.bits(self.scores, self.threshold)

    def effective_weights(self) -> dict[str, Tensor]:
        """The frozen weights where their masks are on, zero elsewhere."""
        found = self.masks()
        return {name: weight * found[name] for name, weight in self.weights.items()}

    def logits(self, images: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits [B, C] of normalised images [B, 3, P, P] under the present masks, or under given weights."""
        if weights is None:
            weights = self.effective_weights()
        parameters = {f"tower.{name}": weight for name, weight in weights.items()}
        features = torch.func.functional_call(self.tower, parameters, (images,))
        return classify(features, self.text, self.logit_scale)

    def step(self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor] | None = None) -> StepReport:
        """One update of the scores.

        Args:
            images: normalised images [B, 3, P, P].
            labels: class indices [B].
            draws: uniform draws of the gate by score tensor; by default from the generator.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        # Effective weights are the leaves: dL/dscore = dL/dW_effective * W by the straight-through estimator, so the
        # threshold itself needs no custom gradient.
        effective = {name: weight.requires_grad_() for name, weight in self.effective_weights().items()}
        leaves = list(effective.values())
        logits = self.logits(images, effective)
        loss = functional.cross_entropy(logits, labels)
        norms = {name: score.norm() for name, score in self.scores.items()}
        mask_loss = self.mask_loss_weight * float(sum(norms.values()))
        value = train.finite(loss, self.steps + 1)

        teacher_loss, teacher_gradient = None, None
        if self.level > 0:
            with torch.no_grad():
                teacher = functional.softmax(self.logits(images, self.weights), dim=1)
            teacher_loss = functional.cross_entropy(logits, teacher)
            grads = torch.autograd.grad(teacher_loss, leaves, retain_graph=True)
            teacher_gradient = self._score_gradients(grads)
        task_gradient = self._score_gradients(torch.autograd.grad(loss, leaves))
        for name, score in self.scores.items():
            if self.mask_loss_weight > 0:
                task_gradient[name] = task_gradient[name] + self.mask_loss_weight * score / norms[name]

        applied = task_gradient
        if teacher_gradient is not None:
            draws = draws or self._draws()
            applied = {
                name: drop_gradient(gradient, teacher_gradient[name], draws[name], self.level)
                for name, gradient in task_gradient.items()
            }
        for name, score in self.scores.items():
            score.grad = applied[name]
        self.optimiser.step()
        self.steps += 1
        return StepReport(
            cross_entropy=value,
            teacher_cross_entropy=None if teacher_loss is None else float(teacher_loss.detach()),
            mask_loss=mask_loss,
            task_gradient=task_gradient,
            teacher_gradient=teacher_gradient,
            applied_gradient=applied,
        )

    def _score_gradients(self, gradients: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {
            name: gradient * weight for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True)
        }

    def _draws(self) -> dict[str, Tensor]:
        return {
            name: torch.rand(score.shape, generator=self.generator).to(score.device)
            for name, score in self.scores.items()
        }


def _row(tuner: MaskTuner, report: StepReport, rate: float) -> train.Row:
    row: train.Row = {"loss": report.cross_entropy, "learning_rate": rate}
    if report.teacher_cross_entropy is not None:
        row["teacher_cross_entropy"] = report.teacher_cross_entropy
    return row | {"masks_flipped": masks.count(tuner.masks())[1]}


def _train(task: Task, tuner: MaskTuner) -> list[train.Row]:
    settings, clip = task.hyperparameters, task.clip
    seed = task.seed("image batches")
    order = EpochBatches(len(task.shots.train), settings["batch_size"], 1, seed)
    epochs = planned_epochs(settings, order.steps_per_epoch)
    order = EpochBatches(len(task.shots.train), settings["batch_size"], epochs, seed)
    assert task.images is not None
    crops = TrainingImages(
        task.images, task.shots.train, clip.pixels, settings["crop_scale"], task.shots.mirror, task.stream
    )

    def step(batch: train.Batch) -> train.Row:
        epoch, pixels, labels = batch
        rate = settings["learning_rate"] * train.cosine(epoch, epochs)
        train.set_rate(tuner.optimiser, rate)
        return _row(tuner, tuner.step(clip.normalise(pixels), labels.to(clip.device)), rate)

    return train.run(task.progress, tuner, train.image_batches(crops, order, task.workers), step)


def tune(task: Task) -> Tuned:
    """Tune the masks for the planned epochs; the last step is kept."""
    settings, clip = task.hyperparameters, task.clip
    tuner = MaskTuner(
        clip.visual,
        task.text.to(clip.device),
        task.logit_scale,
        task.generator("gradient dropout"),
        **{
            name: settings[name]
            for name in ("targets", "initial_score", "threshold", "mask_loss_weight", "learning_rate", "level")
        },
    )
    curve = _train(task, tuner)
    found = tuner.masks()
    total, flipped = masks.count(found)
    return Tuned(
        adapter=masks.pack(found),
        curve=curve,
        steps=len(curve),
        trainable_parameters=total,
        images_seen=len(curve) * min(settings["batch_size"], len(task.shots.train)),
        masks=(total, flipped),
    )


def fold(clip: Any, adapter: Mapping[str, Tensor]) -> Any:
    """A copy of the CLIP with the masks folded into its image tower."""
    tuned = deepcopy(clip)
    masks.fold(tuned.visual, masks.unpack(adapter))
    return tuned


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits with the masks folded into a copy of the tower; any classes will do."""
    tuned = fold(task.clip, adapter)
    return lambda images: classify(tuned.encode_images(images.pixels), images.text, task.logit_scale)


def stand_on(clip: Any, adapter: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Foundation:
    """A copy of the CLIP with the masks folded into its image tower; the text side is untouched."""
    tuned = fold(clip, adapter)
    return Foundation(tuned, tuned.encode_text)
