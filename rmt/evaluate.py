"""The only place that scores: logits and labels to predictions and metrics. Methods never see evaluation labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

CALIBRATION_BINS = 15


def predictions(eval_set: str, paths: Sequence[str], labels: Tensor, logits: Tensor) -> pa.Table:
    """One row per image, with the columns of `rmt.records.PREDICTION_COLUMNS`.

    Args:
        eval_set: name of the evaluation set.
        paths: image paths, N.
        labels: class indices [N].
        logits: float [N, C].

    Raises:
        ValueError: a logit is not finite, or the shapes do not fit.
    """
    if logits.shape[0] != len(paths) or len(labels) != len(paths):
        raise ValueError(f"{eval_set}: {len(paths)} images but logits {tuple(logits.shape)} and {len(labels)} labels")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"{eval_set}: a logit is not finite, image {paths[int(torch.isfinite(logits).all(1).int().argmin())]}"
        )
    logits = logits.double()
    chance = functional.softmax(logits, dim=1)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return pa.table(
        {
            "eval_set": pa.array([eval_set] * len(paths), pa.string()).dictionary_encode(),
            "path": pa.array(paths, pa.string()),
            "label": pa.array(labels.numpy(), pa.int32()),
            "predicted": pa.array(logits.argmax(1).numpy(), pa.int32()),
            "probability": pa.array(chance.gather(1, labels[:, None]).squeeze(1).numpy(), pa.float32()),
            "confidence": pa.array(chance.amax(1).numpy(), pa.float32()),
            "margin": pa.array((own - others).numpy(), pa.float32()),
        }
    )


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error in percent: 15 equal bins of confidence, |accuracy - confidence| weighted by size.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    sizes = np.bincount(bins, minlength=CALIBRATION_BINS)
    gaps = np.bincount(bins, weights=correct.astype(float) - confidence, minlength=CALIBRATION_BINS)
    return float(100 * np.abs(gaps).sum() / sizes.sum())


def metrics(table: pa.Table) -> dict[str, Any]:
    """Metrics of one evaluation set's predictions, as the record's contract describes them."""
    label = table["label"].to_numpy()
    correct = table["predicted"].to_numpy() == label
    per_class = [correct[label == index].mean() for index in np.unique(label)]
    probability = np.maximum(table["probability"].to_numpy().astype(float), np.finfo(np.float32).tiny)
    return {
        "images": len(label),
        "correct": int(correct.sum()),
        "accuracy": float(100 * correct.mean()),
        "class_accuracy": float(100 * np.mean(per_class)),
        "cross_entropy": float(-np.log(probability).mean()),
        "calibration_error": calibration_error(table["confidence"].to_numpy().astype(float), correct),
    }
