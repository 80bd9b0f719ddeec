"""Dimensions of the CLIP models that may be planned, and what follows from them: parameters, masks, floating-point
operations, activations. Standard library only, like `registry`: the Snakefile sizes its jobs by it.

A multiplication with its addition counts as two operations, as in torch.utils.flop_counter, which a test compares.
Matrix products and convolutions are counted; norms, activations and additions are not (below 2 % of a CLIP).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

EXPANSION = 4
"""Width of an MLP, or of a ResNet stage's output, over that of its input."""

TARGETS = ("attention", "mlp", "all")
"""Which weights carry masks, as in `rmt.masks`."""

FROZEN = "none"
"""No weights: a backward pass to the data alone."""


class Work(NamedTuple):
    """Operations of one block: the forward pass, and the gradients with respect to its data, to the weights of its
    attention, and to those of its MLP."""

    forward: float
    data: float
    attention: float
    mlp: float


@dataclass(frozen=True)
class Transformer:
    """A stack of attention blocks of `width`, with `tokens` per sequence."""

    width: int
    layers: int
    tokens: int

    def block(self, queries: int, tokens: int) -> Work:
        """One block in which `queries` of all `tokens` are followed up: keys and values are those of every token."""
        square = self.width**2
        attention = 4.0 * queries * square + 4.0 * tokens * square
        core = 4.0 * queries * tokens * self.width
        mlp = 4.0 * EXPANSION * queries * square
        return Work(attention + core + mlp, attention + 2 * core + mlp, attention, mlp)

    @property
    def parameters(self) -> int:
        """Weights, biases and norms of all blocks."""
        return self.layers * ((4 + 2 * EXPANSION) * self.width**2 + (9 + EXPANSION) * self.width)


@dataclass(frozen=True)
class VisionTransformer(Transformer):
    """CLIP's vision transformer; with `pooled` an attention reads all patches at the end, else the class token is read,
    whose path alone is followed in the last block in training (`rmt.towers`)."""

    patch: int = 16
    embedding: int = 512
    pooled: bool = False

    @property
    def _blocks(self) -> tuple[int, Work, Work]:
        """(number of whole blocks, one of them, the last one, in which one token is followed up)."""
        count = self.layers if self.pooled else self.layers - 1
        return count, self.block(self.tokens, self.tokens), self.block(1, self.tokens)

    @property
    def _patches(self) -> float:
        return 2.0 * 3 * self.patch**2 * self.width * (self.tokens if self.pooled else self.tokens - 1)

    @property
    def _project(self) -> float:
        return 0.0 if self.pooled else 2.0 * self.width * self.embedding

    @property
    def whole(self) -> float:
        """Operations of one image's forward pass by open_clip itself, as features and answers are computed."""
        if self.pooled:
            return self.forward
        return self._patches + self.layers * self.block(self.tokens, self.tokens).forward + self._project

    @property
    def forward(self) -> float:
        """Operations of one image's forward pass in training."""
        count, whole, last = self._blocks
        return self._patches + count * whole.forward + last.forward + self._project

    def backward(self, targets: str) -> float:
        """Operations of one image's backward pass to the weights that carry masks, or to the data alone."""
        count, whole, last = self._blocks
        found = count * whole.data + last.data + self._project
        if targets in ("attention", "all"):
            found += count * whole.attention + last.attention + self._patches
        if targets in ("mlp", "all"):
            found += count * whole.mlp + last.mlp
        # Nothing before the first MLP's hidden layer is needed for MLPs alone.
        return found - (whole.data - whole.mlp / 2 if targets == "mlp" else 0.0)

    @property
    def weights(self) -> int:
        """Parameters."""
        square, width = self.width**2, self.width
        embed = 3 * self.patch**2 * width + self.tokens * width
        if self.pooled:  # biases of the patches, the last norm, the pool: its query, four projections, norm and MLP
            pool = width + (4 + 2 * EXPANSION) * square + (4 + 1 + EXPANSION + 2) * width
            return self.parameters + embed + width + 2 * width + pool
        return self.parameters + embed + width + 4 * width + width * self.embedding

    def masks(self, targets: str) -> int:
        """Weights that carry masks."""
        attention = 3 * self.patch**2 * self.width + self.layers * 4 * self.width**2
        mlp = self.layers * 2 * EXPANSION * self.width**2
        return {"attention": attention, "mlp": mlp, "all": attention + mlp}[targets]

    def kept(self, targets: str) -> float:
        """Numbers that one image keeps for the backward pass: so many per token, layer and unit of width, of which
        QuickGELU alone keeps eight; a frozen product keeps no input. The last block counts by a third."""
        each = {"attention": 17.0, "mlp": 19.0, "all": 21.5}[targets]
        return each * self.tokens * (self.layers - (0.0 if self.pooled else 0.7)) * self.width

    @property
    def live(self) -> float:
        """Numbers of one image that are alive at once without gradients: a hidden layer, twice for its activation."""
        return (3 * EXPANSION + 2) * self.tokens * self.width


@dataclass(frozen=True)
class ResNet:
    """CLIP's ResNet: a stem of three convolutions, four stages of bottlenecks, an attention pool."""

    blocks: tuple[int, int, int, int]
    width: int
    embedding: int
    pixels: int = 224

    def _convolutions(self) -> Iterator[tuple[int, int, int, int]]:
        """(channels in, out, kernel, side of the output) of every convolution."""
        side, half = self.pixels // 2, self.width // 2
        yield from ((3, half, 3, side), (half, half, 3, side), (half, self.width, 3, side))
        side, inner = side // 2, self.width
        for stage, count in enumerate(self.blocks):
            planes, outer = self.width * 2**stage, EXPANSION * self.width * 2**stage
            for block in range(count):
                before = side
                if stage and not block:
                    side //= 2
                yield inner, planes, 1, before
                yield planes, planes, 3, before
                yield planes, outer, 1, side
                if not block:
                    yield inner, outer, 1, side
                inner = outer

    @property
    def _last(self) -> int:
        return 8 * EXPANSION * self.width

    @property
    def _tokens(self) -> int:
        return (self.pixels // 32) ** 2 + 1

    @property
    def _products(self) -> list[float]:
        """Operations of the convolutions, the first one first, and of the pool's projections."""
        costs = [2.0 * inner * outer * kernel**2 * side**2 for inner, outer, kernel, side in self._convolutions()]
        return [*costs, 6.0 * self._tokens * self._last**2 + 2.0 * self._tokens * self._last * self.embedding]

    @property
    def _core(self) -> float:
        return 4.0 * self._tokens**2 * self._last

    @property
    def forward(self) -> float:
        """Operations of one image's forward pass."""
        return sum(self._products) + self._core

    @property
    def whole(self) -> float:
        """The same: nothing is left out in training."""
        return self.forward

    def backward(self, targets: str) -> float:
        """Operations of one image's backward pass to the weights that carry masks, which are all products'."""
        return 2 * sum(self._products) - self._products[0] + 2 * self._core

    @property
    def weights(self) -> int:
        """Parameters."""
        norms = sum(2 * outer for _, outer, _, _ in self._convolutions())
        pool = self._tokens * self._last + 3 * self._last + self.embedding
        return self.masks("all") + norms + pool

    def masks(self, targets: str) -> int:
        """Weights that carry masks, whatever the targets."""
        convolutions = sum(inner * outer * kernel**2 for inner, outer, kernel, _ in self._convolutions())
        return convolutions + 3 * self._last**2 + self._last * self.embedding

    def kept(self, targets: str) -> float:
        """Numbers that one image keeps for the backward pass: about two for each that a convolution puts out."""
        return sum(2.1 * outer * side**2 for _, outer, _, side in self._convolutions())

    @property
    def live(self) -> float:
        """Numbers of one image that are alive at once without gradients: about four outputs of the first stage."""
        return 4.0 * EXPANSION * self.width * (self.pixels // 4) ** 2


@dataclass(frozen=True)
class Text(Transformer):
    """The text tower; `tokens` is its context length."""

    embedding: int = 512
    vocabulary: int = 49408
    biased: bool = False

    def forward(self, tokens: int) -> float:
        """Operations of the forward pass of one prompt of so many tokens; a causal mask saves nothing."""
        return self.layers * self.block(tokens, tokens).forward + 2.0 * self.width * self.embedding

    def backward(self, tokens: int, attention: bool = False) -> float:
        """Operations of one prompt's backward pass to its tokens, and to the weights of attentions if asked."""
        block = self.block(tokens, tokens)
        per_layer = block.data + (block.attention if attention else 0.0)
        return self.layers * per_layer + 2.0 * self.width * self.embedding

    def kept(self, tokens: int) -> float:
        """Numbers that one prompt of so many tokens keeps for a backward pass through frozen weights."""
        return 14.5 * tokens * self.layers * self.width

    @property
    def weights(self) -> int:
        """Parameters."""
        tables = (self.vocabulary + self.tokens) * self.width
        return self.parameters + tables + 2 * self.width + (self.width + self.biased) * self.embedding


@dataclass(frozen=True)
class Architecture:
    """Both towers of a CLIP."""

    image: VisionTransformer | ResNet
    text: Text
    scalars: int = 1

    @property
    def weights(self) -> int:
        """Parameters of both towers, and the scalars of the loss."""
        return self.image.weights + self.text.weights + self.scalars

    @property
    def embedding(self) -> int:
        """Length of a feature."""
        return self.text.embedding


def _vit(patch: int, width: int, layers: int, embedding: int, text: int) -> Architecture:
    image = VisionTransformer(width, layers, (224 // patch) ** 2 + 1, patch, embedding)
    return Architecture(image, Text(text, 12, 77, embedding))


def _resnet(blocks: tuple[int, int, int, int], embedding: int) -> Architecture:
    return Architecture(ResNet(blocks, 64, embedding), Text(512, 12, 77, embedding))


ARCHITECTURES: dict[str, Architecture] = {
    "tiny_clip": Architecture(VisionTransformer(128, 3, 17, 8, 128), Text(64, 2, 16, 128)),
    "ViT-B-16": _vit(16, 768, 12, 512, 512),
    "ViT-B-32": _vit(32, 768, 12, 512, 512),
    "ViT-L-14": _vit(14, 1024, 24, 768, 768),
    "RN50": _resnet((3, 4, 6, 3), 1024),
    "RN101": _resnet((3, 4, 23, 3), 512),
    "ViT-B-16-SigLIP": Architecture(
        VisionTransformer(768, 12, 196, 16, 768, pooled=True), Text(768, 12, 64, 768, 32000, biased=True), scalars=2
    ),
}
"""By open_clip's name without `-quickgelu`, which changes no dimension."""

LARGEST = "ViT-L-14"
"""Stands in for an architecture of a user's own that is not in the table."""


def is_known(name: str) -> bool:
    """Whether the table holds an architecture."""
    return name.removesuffix("-quickgelu") in ARCHITECTURES


def of(name: str) -> Architecture:
    """Dimensions of an architecture by open_clip's name; those of the largest for one that is not in the table."""
    return ARCHITECTURES.get(name.removesuffix("-quickgelu"), ARCHITECTURES[LARGEST])
