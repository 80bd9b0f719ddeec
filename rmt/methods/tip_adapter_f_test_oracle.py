"""Tip-Adapter-F (Zhang et al., ECCV 2022) as its authors select it: on the test set.

As gaopengcuhk/Tip-Adapter main.py and main_imagenet.py: after every epoch the keys answer the test images at the
initial (beta, alpha), and the best epoch, the first of equals, is kept; with its keys (beta, alpha) is searched, on
ImageNet on the test images too; what is reported is the larger of the two test accuracies. So its number is no estimate
of the accuracy on new images: it is here to show what the selection is worth, under this name only. The training is
tip_adapter_f's, step by step. Departures: those of tip_adapter_f but its selection; the search on validation images
sees the few-shot ones, where theirs has the whole val split; the logits of the accuracy that won answer on every
evaluation set.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rmt import train
from rmt.methods import Oracle, Task, Tuned
from rmt.methods.tip_adapter import LOGITS, answer, search
from rmt.methods.tip_adapter_f import KeyTuner, of
from rmt.methods.zero_shot import classify

__all__ = ["LOGITS", "answer", "tune"]


class EpochPicker(KeyTuner):
    """Keys whose best epoch on the test images is remembered."""

    def __init__(self, oracle: Oracle, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.oracle = oracle
        self.correct, self.epoch, self.best = -1, 0, self.keys.detach().clone()

    @torch.no_grad()
    def _correct(self, beta: float, alpha: float) -> int:
        return int((self.logits(self.oracle.features, beta, alpha).argmax(1) == self.oracle.labels).sum())

    def step(self, raw: Tensor, labels: Tensor) -> train.Row:
        """One update, and after an epoch's last a look at the test images."""
        row = super().step(raw, labels)
        epoch, rest = divmod(self.steps, self.order.steps_per_epoch)
        if not rest:
            correct = self._correct(self.settings["initial_beta"], self.settings["initial_alpha"])
            if correct > self.correct:
                self.correct, self.epoch, self.best = correct, epoch, self.keys.detach().clone()
        return row

    def pick(self, val: Tensor, val_labels: Tensor) -> tuple[dict[str, float], int]:
        """Search (beta, alpha) with the best epoch's keys: what is kept, and how many test images it has right.

        Args:
            val: raw features [N, d] of the few-shot validation images.
            val_labels: class indices [N].
        """
        with torch.no_grad():
            self.keys.copy_(self.best)
        on_test = self.settings["search_on"] == "test"
        raw, labels = (self.oracle.features, self.oracle.labels) if on_test else (val, val_labels)
        beta, alpha, _ = search(
            functional.normalize(raw, dim=-1),
            labels,
            classify(raw, self.text, self.logit_scale),
            self.best,
            self.values,
            self.settings["search_scale"],
            self.settings["search_steps"],
        )
        found = self._correct(beta, alpha)
        if found <= self.correct:
            beta, alpha = self.settings["initial_beta"], self.settings["initial_alpha"]
        return {"epoch": self.epoch, "beta": beta, "alpha": alpha}, max(found, self.correct)

    def state(self) -> dict[str, Tensor]:
        """Also the best epoch so far."""
        return super().state() | {"best": self.best, "picked": torch.tensor([self.correct, self.epoch])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        super().load_state(state)
        self.best = state["best"].clone()
        self.correct, self.epoch = state["picked"].tolist()


def tune(task: Task) -> Tuned:
    """Fine-tune the keys, then pick epoch, beta and alpha with the test labels."""
    assert task.oracle is not None, "this method is registered as one that sees the test labels"
    settings = task.hyperparameters
    picker = EpochPicker(task.oracle, **of(task))
    curve = picker.run(task.progress)
    chosen, _ = picker.pick(task.features.of(task.shots.val), task.val_labels)
    return Tuned(
        adapter={"keys": picker.best, "labels": task.train_labels},
        rule="test_oracle",
        checkpoint="best",
        chosen=chosen,
        candidates=settings["epochs"] + settings["search_steps"][0] * settings["search_steps"][1],
        **picker.facts(curve),
    )
