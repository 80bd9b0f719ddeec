"""Linear probe (Radford et al., ICML 2021): logistic regression on frozen image features.

As CoOp's lpclip/linear_probe.py: L-BFGS on un-normalised features; the inverse regularisation C by a sweep over powers
of ten and then a bisection in log10(C), on validation accuracy, ties to the left.
Departures: the few-shot sample and the few-shot validation images are those of every other method (theirs are drawn
anew by numpy); the best setting on validation is kept, where theirs reports the last bisection step; inputs are one
test-transformed view per image, as theirs.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rmt.methods import Answer, Task, Tuned

LOGITS = "logits = f @ weight.T + bias"


def _fit(features: np.ndarray, labels: np.ndarray, inverse: float, iterations: int) -> LogisticRegression:
    probe = LogisticRegression(solver="lbfgs", C=inverse, max_iter=iterations)
    with warnings.catch_warnings():
        # The published recipe stops at its iteration limit for large C; that is part of the recipe, not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(features, labels)


def tune(task: Task) -> Tuned:
    """Fit the probe at every candidate C and keep the best on the few-shot validation images, first wins ties."""
    settings = task.hyperparameters
    train, val = task.features.of(task.shots.train).numpy(), task.features.of(task.shots.val).numpy()
    labels, val_labels = task.train_labels.numpy(), task.val_labels.numpy()
    probes: dict[float, tuple[float, Any]] = {}

    def accuracy(power: float) -> float:
        if power not in probes:
            probe = _fit(train, labels, 10.0**power, settings["maximum_iterations"])
            probes[power] = (float((probe.predict(val) == val_labels).mean()), probe)
        return probes[power][0]

    powers = [math.log10(value) for value in settings["sweep"]]
    peak = max(powers, key=accuracy)
    left, right = peak - 1.0, peak + 1.0
    for _ in range(settings["bisection_steps"]):
        middle = (left + right) / 2
        if accuracy(left) >= accuracy(right):
            right = middle
        else:
            left = middle
    best = max(probes, key=lambda power: probes[power][0])
    probe = probes[best][1]
    weight, bias = torch.from_numpy(probe.coef_).float(), torch.from_numpy(probe.intercept_).float()
    if len(probe.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return Tuned(
        adapter={"weight": weight, "bias": bias},
        steps=int(max(np.atleast_1d(probe.n_iter_))),
        trainable_parameters=weight.numel() + bias.numel(),
        images_seen=len(labels) * int(max(np.atleast_1d(probe.n_iter_))),
        rule="val",
        chosen={"inverse_regularisation": 10.0**best},
        candidates=len(probes),
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """The probe's logits."""
    return lambda images: images.features @ adapter["weight"].T + adapter["bias"]
