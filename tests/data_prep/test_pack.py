"""Packs: the pixels of open_clip's preprocess on every kind of photograph, interruptions, damage, memory."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rmt.torchvision_import  # noqa: F401

from open_clip import image_transform  # isort: skip

from data_prep import pack as packing
from data_prep.__main__ import main
from rmt import data, images
from rmt.records import write_json

ROOT = Path(__file__).resolve().parents[2]
SIDE = 48


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes with noise: something between a photograph and the worst case of an interpolation."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 90 * np.sin(x / (7 + 3 * c) + seed) * np.cos(y / (5 + 4 * c)) for c in range(3)]
    noisy = np.stack(channels, axis=2) + random.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def kinds(folder: Path) -> dict[str, Path]:
    """One file of every kind that the eleven datasets hold, and some that they do not."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}

    def save(name: str, image: Image.Image, **how: object) -> None:
        made[name] = folder / name
        image.save(folder / name, **how)

    for width, height in ((101, 67), (49, 333), (48, 48), (31, 17), (47, 48), (1, 90)):
        save(f"odd-{width}x{height}.jpg", photograph(width, height))
    save("grey.jpg", photograph(90, 61).convert("L"))
    save("grey-alpha.png", photograph(90, 61).convert("LA"))
    palette = photograph(90, 61).quantize(32)
    save("palette.png", palette)
    save("palette.gif", palette)
    save("palette-transparent.png", palette, transparency=bytes(range(0, 256, 8)))
    save("palette-one-transparent.png", palette, transparency=3)
    save("bits.png", photograph(90, 61).convert("1"))
    save("alpha.png", Image.merge("RGBA", (*photograph(90, 61).split(), photograph(90, 61).convert("L"))))
    save("ink.jpg", photograph(90, 61).convert("CMYK"))
    save("luma.jpg", photograph(90, 61), subsampling=2, quality=60)
    save("progressive.jpg", photograph(90, 61), progressive=True)
    deep = (np.asarray(photograph(90, 61).convert("L")).astype(np.uint16) * 257) ^ 3
    save("deep.png", Image.fromarray(deep))
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"turned-{orientation}.jpg", photograph(90, 61), exif=exif)
    return made


def write_split(folder: Path, names: list[str]) -> Path:
    split = {part: [[name, 0, "one"] for name in names] for part in ("train", "val", "test")}
    write_json(folder / "split.json", split)
    return folder / "split.json"


def as_open_clip(path: Path, resize: str, convert: bool = True) -> np.ndarray:
    """The image through open_clip's own preprocess up to its conversion to a tensor, uint8."""
    *steps, _to_tensor, _normalise = image_transform(SIDE, is_train=False, resize_mode=resize).transforms
    with Image.open(path) as image:
        found = image.convert("RGB") if convert else image
        for step in steps:
            found = step(found)
    return np.asarray(found)


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_packed_pixels_are_open_clips_bit_by_bit(tmp_path, resize: str) -> None:
    made = kinds(tmp_path / "images")
    split = write_split(tmp_path, list(made))
    packing.pack("dtd", split, tmp_path / "images", SIDE, tmp_path / "test.npy", resize)
    pack = data.read_pack(tmp_path / "test.npy", whole=True)
    assert pack.transform == ("48px" if resize == "shortest" else "48px-squash")
    assert isinstance(pack.pixels, np.memmap) and pack.pixels.shape == (len(made), SIDE, SIDE, 3)
    for row, (name, path) in enumerate(made.items()):
        assert np.array_equal(pack.pixels[row], as_open_clip(path, resize)), name
        if name.startswith(("odd", "grey.", "luma", "progressive", "turned")):
            # What is RGB or grey may be converted before or after: the same bits.
            assert np.array_equal(pack.pixels[row], as_open_clip(path, resize, convert=False)), name
    # Transparency is dropped, an orientation in EXIF is not applied.
    rows = {name: pack.pixels[row] for row, name in enumerate(made)}
    assert np.array_equal(rows["palette.png"], rows["palette-transparent.png"])
    assert np.array_equal(rows["palette.png"], rows["palette-one-transparent.png"])
    assert np.array_equal(rows["turned-3.jpg"], rows["turned-6.jpg"])
    # Resized as it is, a palette would be picked from, not interpolated: RGB comes first, as in CoOp's own loader.
    assert not np.array_equal(rows["palette.png"], as_open_clip(made["palette.png"], resize, convert=False))


def many(folder: Path, count: int) -> Path:
    (folder / "images").mkdir()
    for number in range(count):
        photograph(40 + number % 7, 36, number).save(folder / "images" / f"{number:03d}.png")
    return write_split(folder, [f"{number:03d}.png" for number in range(count)])


def test_the_file_is_what_numpy_writes(tmp_path) -> None:
    split = many(tmp_path, 5)
    packing.pack("dtd", split, tmp_path / "images", 32, tmp_path / "test.npy")
    expected = images.test_pixels(tmp_path / "images", [f"{number:03d}.png" for number in range(5)], 32)
    np.save(tmp_path / "numpy.npy", expected)
    assert (tmp_path / "test.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("test*")) == ["test.json", "test.npy"]


def test_a_pack_that_was_cut_short_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(packing, "ROWS_PER_BLOCK", 4)
    monkeypatch.setattr(data, "ROWS_PER_BLOCK", 4)
    split = many(tmp_path, 18)
    packing.pack("dtd", split, tmp_path / "images", 32, tmp_path / "whole.npy")

    decoded: list[str] = []
    real = packing.test_pixels

    def counted(folder: Path, paths: list[str], *how: object) -> np.ndarray:
        decoded.extend(paths)
        if len(decoded) == 12 and not broken:
            broken.append(True)
            raise KeyboardInterrupt
        return real(folder, paths, *how)

    broken: list[bool] = []
    monkeypatch.setattr(packing, "test_pixels", counted)
    output = tmp_path / "test.npy"
    with pytest.raises(KeyboardInterrupt):
        packing.pack("dtd", split, tmp_path / "images", 32, output)
    assert not output.exists() and not output.with_suffix(".json").exists()

    part = tmp_path / "test.npy.part"
    good = part.read_bytes()
    for damage, first in (
        (lambda: None, 8),
        (lambda: part.write_bytes(good[:-1]), 4),  # the second block is cut
        (lambda: part.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:]), 0),  # the first is altered
        (lambda: part.unlink(), 0),
        (lambda: (tmp_path / "test.npy.part.json").write_text("{"), 0),
    ):
        kept = (good, (tmp_path / "test.npy.part.json").read_text())
        damage()
        decoded.clear()
        packing.pack("dtd", split, tmp_path / "images", 32, output)
        assert decoded == [f"{number:03d}.png" for number in range(first, 18)]
        assert output.read_bytes() == (tmp_path / "whole.npy").read_bytes()
        assert output.with_suffix(".json").read_text() == (tmp_path / "whole.json").read_text()
        data.read_pack(output, whole=True)
        assert sorted(path.name for path in tmp_path.glob("test.*")) == ["test.json", "test.npy"]
        output.unlink()
        part.write_bytes(kept[0])
        (tmp_path / "test.npy.part.json").write_text(kept[1])

    # Another job's beginning is not taken up.
    decoded.clear()
    packing.pack("dtd", split, tmp_path / "images", 24, output)
    assert len(decoded) == 18


def test_a_killed_process_goes_on(tmp_path) -> None:
    split = many(tmp_path, 600)
    arguments = ["pack", "dtd", "--split", str(split), "--images", f"{tmp_path}/images", "--pixels", "224"]
    arguments += ["--output", f"{tmp_path}/test.npy"]
    process = subprocess.Popen([sys.executable, "-m", "data_prep", *arguments], cwd=ROOT)
    journal = tmp_path / "test.npy.part.json"
    # A busy machine may take long to import torch.
    late = time.monotonic() + 120
    while not journal.exists() and process.poll() is None and time.monotonic() < late:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "test.npy").exists()
    assert len(json.loads(journal.read_text())["blocks_sha256"]) >= 1
    assert main(arguments) == 0
    pack = data.read_pack(tmp_path / "test.npy", whole=True)
    expected = images.test_pixels(tmp_path / "images", [pack.paths[row] for row in (0, 255, 256, 599)], 224)
    assert np.array_equal(pack.pixels[[0, 255, 256, 599]], expected)


def test_damage_is_one_line_when_the_pack_is_read(tmp_path, capsys) -> None:
    split = many(tmp_path, 6)
    packing.pack("dtd", split, tmp_path / "images", 32, tmp_path / "test.npy")
    path, index = tmp_path / "test.npy", tmp_path / "test.json"
    whole, facts = path.read_bytes(), json.loads(index.read_text())
    assert main(["verify", str(path)]) == 0
    assert "whole, 6 images of dtd at 32px" in capsys.readouterr().out
    middle = len(whole) // 2
    for content, changed, words in (
        (whole[:-1], {}, "not a whole pack"),
        (b"", {}, "not a whole pack"),
        (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], {}, "are not those that were packed"),
        (whole, {"paths": facts["paths"][:-1]}, "6 images but 5 paths"),
        (whole, {"labels": facts["labels"][:-1]}, "6 images but 6 paths and 5 labels"),
        (whole, {"pixels": 224}, "the index says 224 pixels"),
        (whole, {"blocks_sha256": []}, "1 blocks of images but 0 digests"),
        (whole, {"blocks_sha256": [hashlib.sha256().hexdigest()]}, "are not those that were packed"),
    ):
        path.write_bytes(content)
        index.write_text(json.dumps(facts | changed))
        with pytest.raises(data.BadData, match=words) as caught:
            data.read_pack(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert main(["verify", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    index.unlink()
    with pytest.raises(data.BadData, match="not a whole pack"):
        data.read_pack(path)


def test_of_a_large_pack_the_ends_are_checked_and_all_of_it_on_demand(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(packing, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(data, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(data, "CHEAP_BYTES", 1000)
    split = many(tmp_path, 6)
    path = tmp_path / "test.npy"
    packing.pack("dtd", split, tmp_path / "images", 32, path)
    pixels = np.load(path, mmap_mode="r+")
    pixels[2] ^= 1
    pixels.flush()
    data.read_pack(path)
    with pytest.raises(data.BadData, match="images from number 2 on are not those"):
        data.read_pack(path, whole=True)
    pixels[5] ^= 1
    pixels.flush()
    with pytest.raises(data.BadData, match="images from number 4 on are not those"):
        data.read_pack(path)


def test_a_full_disk_is_one_line_and_nothing_looks_whole(tmp_path, monkeypatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    split = many(tmp_path, 3)
    os.symlink("/dev/full", tmp_path / "test.npy.part")
    with pytest.raises(data.BadData, match=r"No space left on device; with that remedied, the same command goes on"):
        packing.pack("dtd", split, tmp_path / "images", 32, tmp_path / "test.npy")
    assert not (tmp_path / "test.npy").exists()


def test_a_pack_for_another_transform_is_refused(tmp_path) -> None:
    split = many(tmp_path, 3)
    packing.pack("dtd", split, tmp_path / "images", 32, tmp_path / "test.npy", "squash")
    pack = data.read_pack(tmp_path / "test.npy")
    with pytest.raises(data.BadData, match="the pack of dtd is 32px-squash, tiny_clip reads 32px"):
        data.check_transform(pack, "tiny_clip", "32px")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path) -> None:
    """1,200 images are 181 MB at 224 px and 1.2 GB decoded; a pack of them must need little more than one of 300."""

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        photograph(720, 480).save(folder / "0.jpg")
        for number in range(1, count):
            (folder / f"{number}.jpg").hardlink_to(folder / "0.jpg")
        write_split(folder, [f"{number}.jpg" for number in range(count)])
        code = (
            "import resource, sys; from data_prep.__main__ import main; main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        arguments = ["pack", "dtd", "--split", f"{folder}/split.json", "--images", str(folder), "--pixels", "224"]
        line = [sys.executable, "-c", code, *arguments, "--output", f"{folder}/test.npy"]
        return int(subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    kilobytes = 1 if sys.platform == "linux" else 1024
    assert (peak(1200) - peak(300)) / kilobytes < 60_000
