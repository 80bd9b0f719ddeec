"""Packed masks without torch: their places in the tower, counts by matrix, damage."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rmt import packed

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "conv1.weight": (8, 3, 2, 2),
    "transformer.resblocks.0.attn.in_proj_weight": (24, 8),
    "transformer.resblocks.0.attn.out_proj.weight": (8, 8),
    "transformer.resblocks.0.mlp.c_fc.weight": (32, 8),
    "transformer.resblocks.0.mlp.c_proj.weight": (8, 32),
    "transformer.resblocks.11.attn.in_proj_weight": (24, 8),
}


def test_places_of_a_vision_transformer() -> None:
    masks = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
    masks["transformer.resblocks.11.attn.in_proj_weight"][16:] = False  # the value's rows come last
    masks["transformer.resblocks.0.mlp.c_proj.weight"][0, :5] = False
    found = packed.parts(packed.unpack(packed.pack(masks)))
    assert [(part.layer, part.matrix, part.scores, part.off) for part in found] == [
        ("patches", "embedding", 96, 0),
        ("block 0", "query", 64, 0),
        ("block 0", "key", 64, 0),
        ("block 0", "value", 64, 0),
        ("block 0", "output", 64, 0),
        ("block 0", "MLP in", 256, 0),
        ("block 0", "MLP out", 256, 5),
        ("block 11", "query", 64, 0),
        ("block 11", "key", 64, 0),
        ("block 11", "value", 64, 64),
    ]
    assert packed.matrix_order({part.matrix for part in found}) == [
        "embedding", "query", "key", "value", "output", "MLP in", "MLP out",
    ]  # fmt: skip


def test_places_of_a_resnet(golden) -> None:
    from rmt import masks

    tower = golden("r_amt_resnet_s0_inputs").tower()
    names = list(masks.maskable(tower))
    found = {name: packed.place(name, resnet=True) for name in names}
    assert found["conv1.weight"] == ("stem", ("conv1",))
    assert found["layer1.0.conv2.weight"] == ("layer1.0", ("conv2",))
    assert found["layer1.0.downsample.0.weight"] == ("layer1.0", ("downsample",))
    assert found["attnpool.c_proj.weight"] == ("attention pool", ("output",))
    assert len(set(found.values())) == len(names)


@pytest.mark.parametrize("shape", [(3, 5), (6, 4), (3, 1), (9, 8)])
def test_counts_where_parts_end_within_a_byte(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(sum(shape)).random(shape) > 0.4
    bits = packed.unpack(packed.pack({"one": mask}))["one"]
    assert (bits.mask == mask).all() and bits.size == mask.size
    assert bits.off() == [int((~mask).sum())]
    assert bits.off(3) == [int((~rows).sum()) for rows in np.split(mask, 3)]
    assert int(np.bitwise_count(packed.off_bits({"one": bits})).sum()) == int((~mask).sum())


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(packed.BadMasks, match="no such file"):
        packed.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(packed.BadMasks, match="not an adapter"):
        packed.read(path)
    save_file({"keys": np.zeros(3, np.float32)}, path)
    with pytest.raises(packed.BadMasks, match="holds no masks"):
        packed.read(path)
    whole = packed.pack({"one": np.ones((4, 4), bool)})
    save_file(whole | {"mask.one": whole["mask.one"][:-3]}, path)
    with pytest.raises(packed.BadMasks, match="damaged"):
        packed.read(path)


def test_masks_are_read_without_torch() -> None:
    code = "import sys, rmt.packed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
