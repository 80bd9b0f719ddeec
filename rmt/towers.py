"""The image tower's forward pass without dead work.

CLIP's vision transformer reads only the class token of its last block: queries, output projection and MLP of all other
tokens there change nothing. Leaving them out gives the same features, at a third less work for three blocks and about
a tenth less for twelve.
"""

from typing import Any

from torch import Tensor, nn


def _reads_the_class_token_only(tower: nn.Module) -> bool:
    """Whether a tower is open_clip's plain VisionTransformer, pooled at the class token."""
    transformer: Any = getattr(tower, "transformer", None)
    blocks = getattr(transformer, "resblocks", [])
    return (
        type(tower).__name__ == "VisionTransformer"
        and type(tower).__module__.startswith("open_clip.")
        and getattr(tower, "attn_pool", None) is None
        and getattr(tower, "pool_type", None) == "tok"
        and not getattr(tower, "output_tokens", False)
        and len(blocks) > 0
        and type(blocks[-1]).__name__ == "ResidualAttentionBlock"
        and getattr(transformer, "batch_first", False)
    )


class Tower(nn.Module):
    """Wraps an image tower; its forward pass [B, 3, P, P] to [B, d] leaves out what does not reach the features.

    Towers of other kinds run as they are, and so does any tower when `short` is False: the short way rounds differently
    in the last bit.
    """

    def __init__(self, tower: nn.Module, short: bool = True) -> None:
        super().__init__()
        self.tower = tower
        self.short = short and _reads_the_class_token_only(tower)

    def forward(self, images: Tensor) -> Tensor:
        """Image features [B, d], not normalised."""
        tower: Any = self.tower
        if not self.short:
            return tower(images)
        tokens = tower._embeds(images)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        normed = last.ln_1(tokens)
        attended = last.attn(normed[:, :1], normed, normed, need_weights=False)[0]
        first = tokens[:, :1] + last.ls_1(attended)
        first = first + last.ls_2(last.mlp(last.ln_2(first)))
        pooled, _ = tower._pool(first)
        return pooled if tower.proj is None else pooled @ tower.proj
