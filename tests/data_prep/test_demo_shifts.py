"""The shifted test sets of the demo's letters: what is drawn, what the verbs make of it, how far zero-shot falls."""

import json

import numpy as np
import pytest
import torch

from data_prep import catalog, splits
from data_prep.__main__ import main
from data_prep.demo import datasets, shifts, world
from rmt import backbones
from rmt.data import read_pack

SIZES = {
    "letters_redrawn": (26, 40),
    "letters_sketch": (26, 40),
    "letters_hard": (14, 60),
    "letters_renditions": (13, 60),
}


@pytest.fixture(scope="module")
def sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: shifts.images_of(name) for name in shifts.NAMES}


@pytest.mark.parametrize("name", shifts.NAMES)
def test_a_shifted_set_has_the_documented_size_and_is_the_same_at_every_call(name: str, sets) -> None:
    images, labels = sets[name]
    classes, per_class = SIZES[name]
    assert np.bincount(labels).tolist() == [per_class] * classes and (np.diff(labels) >= 0).all()
    assert (images.shape, images.dtype, labels.dtype) == ((classes * per_class, 32, 32, 3), np.uint8, np.int64)
    again = shifts.images_of(name)
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])


def test_the_catalog_knows_them_as_test_sets_of_letters() -> None:
    assert catalog.shifts_of("letters") == list(shifts.NAMES) == list(SIZES)
    source = catalog.DATASETS["letters"]
    for name, (classes, per_class) in SIZES.items():
        entry = catalog.DATASETS[name]
        assert not entry.trainable and entry.source == "generated"
        assert (entry.classes, entry.split_sizes) == (classes, (0, 0, classes * per_class))
        assert (entry.template, entry.mirror) == (source.template, source.mirror)


def test_classes_are_letters_by_name_and_in_their_order() -> None:
    letters = datasets.class_names("letters")
    assert shifts.class_names("letters_redrawn") == shifts.class_names("letters_sketch") == letters
    assert shifts.class_names("letters_hard") == list("CDEFGHMNOPQRUV")
    assert shifts.class_names("letters_renditions") == letters[::2]


def test_a_fresh_draw_repeats_no_image(sets) -> None:
    old = {image.tobytes() for image in datasets.images_of("letters")[0]}
    for images, _ in sets.values():
        new = {image.tobytes() for image in images}
        assert len(new) == len(images) and not new & old


def test_a_sketch_is_grey_strokes_on_light_paper(sets) -> None:
    images = sets["letters_sketch"][0].astype(float)
    # All that tells the channels apart is noise, and the strokes cover the lesser part.
    assert np.abs(images.mean((1, 2)).max(1) - images.mean((1, 2)).min(1)).max() < 8
    assert np.median(images) > 200 > images.min()


def test_an_unknown_set_is_refused_with_the_valid_names() -> None:
    for function in (shifts.class_names, shifts.images_of):
        with pytest.raises(ValueError, match=r"'letters'.*letters_redrawn, letters_sketch, letters_hard"):
            function("letters")


def test_the_verbs_work_on_them(tmp_path, capsys) -> None:
    """download, split, list and pack; no sample can be drawn."""
    name, folder = "letters_hard", tmp_path / "letters_hard"
    assert main(["download", name, "--data", str(tmp_path)]) == 0
    assert main(["split", name, "--data", str(tmp_path), "--output", f"{folder}/split.json"]) == 0
    split = splits.read_split(folder / "split.json")
    assert (split["train"], split["val"], len(split["test"])) == ([], [], 840)
    assert split["test"][-1] == ("13_V/0060.png", 13, "V")
    pack = ["pack", name, "--split", f"{folder}/split.json", "--images", f"{folder}/images", "--pixels", "32"]
    assert main([*pack, "--output", f"{folder}/32px.npy"]) == 0
    found = read_pack(folder / "32px.npy")
    assert found.classes == tuple(shifts.LOOK_ALIKES) and found.template == "a photo of the letter {}."
    assert np.array_equal(found.pixels, shifts.images_of(name)[0])
    assert json.loads((folder / "verified.json").read_text())["images"] == 840
    assert main(["list", "--data", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [name])
    assert "0 / 0 / 840" in row and "verified" in row
    assert main(["sample", "--split", f"{folder}/split.json", "--shots", "1", "--seed", "1"]) == 2
    assert "this is a test set only" in capsys.readouterr().err


@pytest.fixture(scope="module")
def clip() -> backbones.Clip:
    return backbones.load("tiny_clip", torch.device("cpu"))


# Measured with the shipped checkpoint: the set, and plain letters of its classes. A tolerance, as glyphs may change
# with FreeType.
@pytest.mark.parametrize(
    ("name", "expected", "plain"),
    [
        ("letters_redrawn", 56.9, 53.5),
        ("letters_sketch", 43.0, 53.5),
        ("letters_hard", 28.1, 60.4),
        ("letters_renditions", 61.4, 71.3),
    ],
)
def test_zero_shot_accuracy_is_as_measured(name: str, expected: float, plain: float, sets, clip) -> None:
    classes = shifts.class_names(name)
    text = clip.encode_text(classes, catalog.DATASETS[name].template)

    def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
        features = torch.nn.functional.normalize(clip.encode_images(images), dim=1)
        answers = (features @ torch.nn.functional.normalize(text, dim=1).T).argmax(1).numpy()
        return 100 * float((answers == labels).mean())

    images, labels = datasets.images_of("letters")
    rows = np.isin(labels, [world.LETTERS.index(letter) for letter in classes])
    own = np.unique(labels[rows], return_inverse=True)[1]
    assert accuracy(images[rows], own) == pytest.approx(plain, abs=3)
    assert accuracy(*sets[name]) == pytest.approx(expected, abs=3)
