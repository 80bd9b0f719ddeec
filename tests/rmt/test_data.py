import json

import numpy as np
import pytest
import torch
from PIL import Image

from rmt import data, features
from rmt import images as pictures
from rmt.train import cosine, image_batches, warmup_cosine
from tests import toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.make(tmp_path_factory.mktemp("toy"), shots=(2,), seeds=(1,))


def crops(folder, stream="digits 2 1"):
    sample = data.read_sample(toy.sample_file(folder, 2, 1))
    return pictures.TrainingImages(folder / "images", sample.train, 32, (0.5, 1.0), True, stream)


def test_packed_images_are_bit_identical_to_decoding_each_time(folder) -> None:
    pack = data.read_pack(folder / "test.npy")
    transform = pictures.test_transform(32)
    for row in range(0, 40, 7):
        with Image.open(folder / "images" / pack.paths[row]) as image:
            fresh = np.asarray(transform(image.convert("RGB")))
        assert np.array_equal(pack.pixels[row], fresh)
    assert len(pack.paths) == 40 and list(np.bincount(pack.labels)) == [10, 10, 10, 10]


def test_the_test_transform_is_open_clips(tmp_path) -> None:
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, image_transform

    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    ours = torch.from_numpy(pictures.test_pixels(tmp_path, ["photo.png"], 32)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1), torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1)
    theirs = image_transform(32, is_train=False)(Image.open(tmp_path / "photo.png"))
    torch.testing.assert_close((ours[0] - mean) / std, theirs, rtol=0, atol=1e-6)


def test_a_crop_depends_on_stream_path_and_epoch_only(folder) -> None:
    first, again, other = crops(folder), crops(folder), crops(folder, "digits 2 2")
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    image = first[3, 5][0]
    assert torch.equal(torch.random.get_rng_state(), state), "it must not touch the global generator"
    [again[epoch, index] for epoch in range(2) for index in range(8)]
    assert torch.equal(image, again[3, 5][0])
    assert not torch.equal(image, first[4, 5][0])
    assert not torch.equal(image, other[3, 5][0])


def test_workers_change_nothing(folder) -> None:
    images, order = crops(folder), data.EpochBatches(8, 4, 2, seed=7)
    alone, helped = list(image_batches(images, order)(0)), list(image_batches(images, order, workers=2)(0))
    assert [epoch for epoch, _, _ in alone] == [0, 0, 1, 1]
    for (_, one, labels), (_, two, others) in zip(alone, helped, strict=True):
        assert torch.equal(one, two) and torch.equal(labels, others)


@pytest.mark.parametrize(
    ("images", "drop_last", "steps"), [(20, True, 1), (32, True, 1), (63, True, 1), (64, True, 2), (63, False, 2)]
)
def test_the_last_batch_is_dropped_only_when_there_is_a_full_one(images: int, drop_last: bool, steps: int) -> None:
    order = data.EpochBatches(images, 32, 3, seed=1, drop_last=drop_last)
    found = list(order)
    assert order.steps_per_epoch == steps and len(found) == len(order) == 3 * steps
    first = [index for batch in found[:steps] for _, index in batch]
    assert len(first) == len(set(first)) == (min(images, 32 * steps))
    assert [key[0] for key in found[-1]] == [2] * len(found[-1])


def test_schedules() -> None:
    assert [cosine(step, 4) for step in range(5)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])
    rates = [warmup_cosine(epoch, 50, 0.002, 1e-5) for epoch in range(50)]
    assert rates[0] == 1e-5 and rates[1] == 0.002
    assert rates[49] == pytest.approx(0.002 * 0.5 * (1 + np.cos(np.pi * 48 / 50)))


def test_seeds_are_the_same_on_every_machine() -> None:
    assert data.seed_from("digits 16 1", "order") == 6848011535356146682
    assert data.seed_from("a", "bc") != data.seed_from("ab", "c")


def test_features_survive_the_file_and_know_their_rows(folder) -> None:
    assert toy.encode(folder) == 0
    found = features.load(folder / "features.safetensors")
    sample = data.read_sample(toy.sample_file(folder, 2, 1))
    assert found.text.shape == (4, 128) and found.test.shape == (40, 128)
    assert found.of(sample.train).shape == (8, 128) and found.of(sample.val).shape == (8, 128)
    assert found.views_of(sample.train).shape == (8, 3, 128)
    torch.testing.assert_close(found.text.norm(dim=1), torch.ones(4))
    assert found.metadata["dataset"] == "digits" and found.metadata["classes"] == list(toy.CLASSES)

    from rmt import backbones

    clip = backbones.load("tiny_clip")
    one = clip.encode_images(pictures.test_pixels(folder / "images", [sample.train[3][0]], 32))
    torch.testing.assert_close(found.of(sample.train)[3:4], one, rtol=0, atol=1e-5)


def test_features_do_not_depend_on_how_many_images_are_in_memory(folder, monkeypatch) -> None:
    from rmt import backbones

    clip = backbones.load("tiny_clip")
    sample, pack = data.read_sample(toy.sample_file(folder, 2, 1)), data.read_pack(folder / "test.npy")
    text = clip.text_features(pack.classes, pack.template)
    found = []
    for part in (256, 5):
        monkeypatch.setattr(features, "PART", part)
        found.append(features.encode(clip, [sample], folder / "images", pack.pixels, pack.labels, text, 3, {}))
    torch.testing.assert_close(found[0].views, found[1].views, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0].images, found[1].images, rtol=0, atol=1e-5)
    none = features.encode(clip, [], folder / "images", pack.pixels, pack.labels, text, 3, {})
    assert none.images.shape == (0, 128) and none.views.shape == (0, 3, 128) and not none.rows


@pytest.mark.parametrize("content", ["", "{}", '{"dataset": "digits", "shots": 2}'])
def test_a_bad_sample_says_how_to_make_one(tmp_path, content: str) -> None:
    path = tmp_path / "sample.json"
    path.write_text(content)
    with pytest.raises(data.BadData, match="make it with `snakemake samples`"):
        data.read_sample(path)


def test_files_that_do_not_belong_together_are_refused(folder, tmp_path) -> None:
    np.save(tmp_path / "test.npy", np.zeros((3, 32, 32, 3), np.uint8))
    index = json.loads((folder / "test.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps(index))
    with pytest.raises(data.BadData, match="3 images but 40 paths"):
        data.read_pack(tmp_path / "test.npy")
    (tmp_path / "features.safetensors").write_bytes(b"nonsense")
    with pytest.raises(data.BadData, match="not a feature file"):
        features.load(tmp_path / "features.safetensors")
    with pytest.raises(data.BadData, match=r"gone\.png: image is missing"):
        pictures.decode(tmp_path / "gone.png")


def test_the_tiny_clip_refuses_words_it_never_saw() -> None:
    from rmt import backbones

    clip = backbones.load("tiny_clip")
    assert clip.text_features(["seven"], "a photo of the digit {}.").shape == (1, 128)
    with pytest.raises(backbones.BackboneError, match="zebra"):
        clip.text_features(["zebra"], "a photo of a {}.")
    assert clip.logit_scale == pytest.approx(26, abs=5)
