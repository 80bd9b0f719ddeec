"""Gradient dropout: keep what agrees with the frozen model's knowledge (Zheng et al., arXiv 2307.15049, section 3.3).

For one score, let a be the gradient of the task loss and b the gradient of the cross-entropy to the frozen model's own
predictions. The gradient a is kept with probability

    P = 1/2 (1 + sign(a) (a + b) / (|a| + |b|))

so always when both point the same way, and with |a| / (|a| + |b|) when they contradict each other. b only gates; it is
never applied.
"""

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to |a| + |b|, as in the released code; not negligible for very small gradients, so part of the method."""


def keep_probability(a: Tensor, b: Tensor) -> Tensor:
    """P for every entry of two gradients of equal shape; 1/2 where both are zero."""
    return 0.5 * (1.0 + torch.sign(a) * (a + b) / (a.abs() + b.abs() + EPSILON))


def drop_gradient(a: Tensor, b: Tensor, uniform: Tensor, level: float) -> Tensor:
    """The gradient that the optimiser receives.

    Args:
        a: gradient of the task loss, any shape.
        b: gradient of the cross-entropy to the frozen model's predictions, same shape.
        uniform: draws from U[0, 1), same shape; an entry is kept where P > draw, strictly.
        level: gradient dropout level in [0, 1]: dropped entries are multiplied by 1 - level. 0 drops nothing.
    """
    kept = (keep_probability(a, b) > uniform).to(a.dtype)
    return ((1.0 - level) + level * kept) * a
