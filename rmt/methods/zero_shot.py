"""Zero-shot CLIP (Radford et al., ICML 2021): logits = scale * cos(image, text of the class's prompt).

One prompt per dataset, as CoOp's trainers/zsclip.py; no ensemble.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from rmt.methods import Answer, Task, Tuned

LOGITS = "logits = logit_scale * n(f) @ text.T"


def classify(features: Tensor, text: Tensor, logit_scale: float) -> Tensor:
    """CLIP's logits [N, C] from image features [N, d], not normalised, and L2-normalised text features [C, d]."""
    return logit_scale * functional.normalize(features, dim=-1) @ text.T


def tune(task: Task) -> Tuned:
    """Nothing is tuned."""
    return Tuned()


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's own logits."""
    return lambda images: classify(images.features, images.text, task.logit_scale)
