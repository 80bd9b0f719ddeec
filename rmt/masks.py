"""Binary masks on frozen weights: which tensors carry them, scores, packing to bits, folding into the weights.

A weight counts only while its score exceeds the threshold: W_effective = W * [score > threshold]. The threshold step
has no useful derivative; the straight-through estimator takes dL/dscore = dL/dW_effective * W
(Zheng et al., arXiv 2307.15049; tensors and values as in the released code, wuw2019/R-AMT).
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from rmt import packed
from rmt.errors import UserError

Targets = Literal["attention", "mlp", "all"]

_PATCH = r"conv1\.weight"
_ATTENTION = r"transformer\.resblocks\.\d+\.attn\.(in_proj_weight|out_proj\.weight)"
_MLP = r"transformer\.resblocks\.\d+\.mlp\.(c_fc|c_proj)\.weight"
# A ResNet has no MLP: the released code masks every convolution and the attention pool whatever the setting.
_RESNET = r"(.*\.)?(conv\d|downsample\.0)\.weight|attnpool\.[qkvc]_proj\.weight"

_PATTERNS: dict[str, str] = {
    "attention": f"{_PATCH}|{_ATTENTION}",
    "mlp": _MLP,
    "all": f"{_PATCH}|{_ATTENTION}|{_MLP}",
}


class NotMaskable(UserError):
    """An image tower without the tensors that mask tuning needs."""


def maskable(tower: nn.Module, targets: str = "attention") -> dict[str, Tensor]:
    """The weights that carry masks, by name, in the tower's own order.

    Vision transformer: "attention" is the patch embedding and every attention's in- and output projection (the authors'
    R-AMT masks the patch embedding too), "mlp" the two matrices of every MLP, "all" both. ResNet: every convolution and
    the four projections of the attention pool. Biases, norms, embeddings and the final projection never carry masks.

    Raises:
        ValueError: unknown targets.
        NotMaskable: the tower has no maskable attention.
    """
    if targets not in _PATTERNS:
        raise ValueError(f"targets {targets!r}: expected one of {', '.join(_PATTERNS)}")
    weights = dict(tower.named_parameters())
    resnet = any(name.startswith("attnpool.") for name in weights)
    pattern = re.compile(_RESNET if resnet else _PATTERNS[targets])
    found = {name: weight.detach() for name, weight in weights.items() if pattern.fullmatch(name)}
    if not resnet and not any(re.fullmatch(_ATTENTION, name) for name in weights):
        raise NotMaskable(
            f"image tower {type(tower).__name__} has no attention that mask tuning knows (open_clip's "
            "VisionTransformer or ModifiedResNet); choose another backbone or method"
        )
    return found


def initial_scores(weights: Mapping[str, Tensor], value: float) -> dict[str, Tensor]:
    """Scores of all masks, every one `value`, which must exceed the threshold so that tuning starts at zero-shot."""
    return {name: torch.full_like(weight, value) for name, weight in weights.items()}


def bits(scores: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Boolean masks: True where the score strictly exceeds the threshold, so where the weight counts."""
    return {name: score > threshold for name, score in scores.items()}


def count(masks: Mapping[str, Tensor]) -> tuple[int, int]:
    """(number of masks, number of masks that are off)."""
    total = sum(mask.numel() for mask in masks.values())
    return total, total - int(sum(int(mask.sum()) for mask in masks.values()))


def fold(tower: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Multiply the masks into the tower's weights, in place: inference then costs what the frozen tower costs.

    Raises:
        KeyError: a mask names a tensor that the tower lacks.
    """
    weights = dict(tower.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask.to(weights[name]))


def pack(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks as bits, compressed: one uint8 tensor per mask, plus `shapes`; the format of `rmt.packed`."""
    found = packed.pack({name: mask.cpu().numpy() for name, mask in masks.items()})
    return {name: torch.from_numpy(octets.copy()) for name, octets in found.items()}


def unpack(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `pack`.

    Raises:
        ValueError: a mask's bytes do not fit its shape.
    """
    found = packed.unpack({name: octets.numpy() for name, octets in adapter.items()})
    return {name: torch.from_numpy(bits.mask) for name, bits in found.items()}
