"""Masks as packed bits, in numpy alone: read without torch, counted by layer and matrix, compared with each other.

In `adapter.safetensors` every mask is one uint8 tensor `mask.NAME`: its bits as in the authors' checkpoints (row-major,
eight per byte, most significant first, zero padded), deflated, because nearly all bits are ones; `shapes` holds their
shapes as JSON bytes.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from rmt.errors import UserError

PATCHES = "patches"
"""Layer of a vision transformer's patch embedding."""

_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._]weight")
_MATRICES = {
    "attn.in_proj": ("query", "key", "value"),
    "attn.out_proj": ("output",),
    "mlp.c_fc": ("MLP in",),
    "mlp.c_proj": ("MLP out",),
}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "c_proj": "output"}
_ORDER = ("embedding", "conv1", "conv2", "conv3", "downsample", "query", "key", "value", "output", "MLP in", "MLP out")


class BadMasks(UserError):
    """An adapter that is missing, or holds no masks; one line that names it."""


@dataclass(frozen=True)
class Bits:
    """One mask: its shape, and one bit per weight, True where the weight counts, eight per byte, zero padded."""

    shape: tuple[int, ...]
    octets: np.ndarray

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))

    @property
    def mask(self) -> np.ndarray:
        """The mask as booleans of its shape."""
        return np.unpackbits(self.octets, count=self.size).astype(bool).reshape(self.shape)

    @cached_property
    def off_octets(self) -> np.ndarray:
        """The complement's bits, zero padded."""
        found = ~self.octets
        if self.size % 8:
            found[-1] &= 0xFF << (8 - self.size % 8) & 0xFF
        return found

    def off(self, parts: int = 1) -> list[int]:
        """Weights that are masked off, in each of so many equal parts of the rows."""
        size = self.size // parts
        if size % 8 == 0:
            octets = self.off_octets.reshape(parts, -1)
            return [int(count) for count in np.bitwise_count(octets).sum(1, dtype=np.int64)]
        bits = np.unpackbits(self.off_octets, count=self.size).reshape(parts, -1)
        return [int(count) for count in bits.sum(1, dtype=np.int64)]


@dataclass(frozen=True)
class Part:
    """One matrix of one layer: its scores, and how many masks are off."""

    layer: str
    matrix: str
    scores: int
    off: int

    @property
    def fraction(self) -> float:
        """Share of masks that are off."""
        return self.off / self.scores


def pack(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Boolean masks as the tensors of an adapter."""
    packed = {
        f"mask.{name}": np.frombuffer(zlib.compress(np.packbits(mask.reshape(-1)).tobytes(), 9), dtype=np.uint8)
        for name, mask in masks.items()
    }
    shapes = json.dumps({name: list(mask.shape) for name, mask in masks.items()}).encode()
    return packed | {"shapes": np.frombuffer(shapes, dtype=np.uint8)}


def unpack(packed: Mapping[str, np.ndarray]) -> dict[str, Bits]:
    """Inverse of `pack`, by the names of the masked weights.

    Raises:
        ValueError: a mask's bytes do not fit its shape.
    """
    found = {}
    for name, shape in json.loads(packed["shapes"].tobytes()).items():
        octets = np.frombuffer(zlib.decompress(packed[f"mask.{name}"].tobytes()), dtype=np.uint8)
        bits = Bits(tuple(shape), octets)
        if octets.size != (bits.size + 7) // 8:
            raise ValueError(f"mask {name}: {octets.size} bytes do not hold {bits.size} bits")
        found[name] = bits
    return found


def read(path: Path) -> dict[str, Bits]:
    """The masks of an adapter file, by the names of the masked weights.

    Raises:
        BadMasks: it is missing, damaged, or holds no masks.
    """
    try:
        packed = load_file(path)
    except FileNotFoundError as error:
        raise BadMasks(f"{path}: no such file; the run is not whole, fit it again") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise BadMasks(f"{path}: not an adapter ({error}); fit its run again") from error
    if "shapes" not in packed:
        raise BadMasks(f"{path}: holds no masks")
    try:
        return unpack(packed)
    except (ValueError, KeyError, zlib.error) as error:
        raise BadMasks(f"{path}: its masks are damaged ({error}); fit its run again") from error


def place(name: str, resnet: bool) -> tuple[str, tuple[str, ...]]:
    """(layer, matrices) of a masked weight; attention's input projection is three matrices, one below the other.

    Layers of a vision transformer are `patches` and `block 0`, `block 1`, ..., numbered as in open_clip; those of a
    ResNet are `stem`, `layer1.0`, ..., `attention pool`.
    """
    if resnet:
        layer, _, matrix = name.removesuffix(".weight").removesuffix(".0").rpartition(".")
        if layer == "attnpool":
            return "attention pool", (_PROJECTIONS[matrix],)
        return layer or "stem", (matrix,)
    block = _BLOCK.fullmatch(name)
    if block is None:
        return PATCHES, ("embedding",)
    return f"block {block[1]}", _MATRICES.get(block[2], (block[2],))


def parts(masks: Mapping[str, Bits]) -> list[Part]:
    """Every matrix of every layer, in the order of the tower."""
    resnet = any(name.startswith("attnpool.") for name in masks)
    found = []
    for name, bits in masks.items():
        layer, matrices = place(name, resnet)
        counts = bits.off(len(matrices))
        found += [
            Part(layer, matrix, bits.size // len(matrices), off) for matrix, off in zip(matrices, counts, strict=True)
        ]
    return found


def matrix_order(matrices: set[str]) -> list[str]:
    """Names of matrices in the order in which the tower uses them."""
    return sorted(matrices, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def off_bits(masks: Mapping[str, Bits]) -> np.ndarray:
    """The off-bits of all masks, one after the other: uint8, every mask padded to whole bytes."""
    return np.concatenate([bits.off_octets for bits in masks.values()])
