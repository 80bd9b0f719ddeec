"""The demo's drawn world, its six sets, the shipped checkpoint and a pre-training run of a few steps."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Generator

from data_prep import splits
from data_prep.__main__ import GENERATED_LEAST, GENERATED_POOL, GENERATED_SEED, GENERATED_VAL
from data_prep.catalog import DATASETS
from data_prep.demo import datasets, pretrain, world

# After pretrain, which makes torchvision importable.
# isort: split
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer

WEIGHTS = Path(__file__).parents[2] / "rmt" / "weights"
CHECKPOINT = WEIGHTS / "tiny_clip.safetensors"
PROMPTS = {
    "digits": "a photo of the digit {}.",
    "letters": "a photo of the letter {}.",
    "displays": "the number {}.",
    "outlines": "a photo of a {}.",
    "textures": "a {} texture.",
    "colors": "a photo of a {} shape.",
}
Sets = dict[str, tuple[np.ndarray, np.ndarray]]
IMAGES_PER_CLASS = {"letters": 60, "displays": 120, "outlines": 120, "textures": 120, "colors": 120}


def read_checkpoint(path: Path) -> CLIP:
    """The model of a checkpoint file, with its own vocabulary and context."""
    weights = load_file(path)
    token_ids = weights.pop("token_ids")
    config = json.loads((WEIGHTS / "tiny_clip.json").read_text())
    context = len(weights["positional_embedding"])
    config["text_cfg"] |= {"vocab_size": len(token_ids), "context_length": context}
    model = CLIP(**config).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model


@pytest.fixture(scope="module")
def checkpoint() -> CLIP:
    return read_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def sets() -> Sets:
    return {name: datasets.images_of(name) for name in datasets.NAMES}


# ------------------------------------------------------------------------------------------- the world


def test_captions_are_354_in_82_byte_pair_ids_of_at_most_10_tokens() -> None:
    texts = [caption.text for caption in world.captions()]
    assert len(texts) == len(set(texts)) == len(world.caption_indices()) == 354
    token_ids, tokens = pretrain.restricted_vocabulary()
    assert len(token_ids) == 82
    assert tokens.shape == (354, 10)
    assert token_ids[0] == 0
    assert torch.equal(token_ids[tokens], SimpleTokenizer(context_length=10)(texts))


def test_batch_has_documented_shapes_and_depends_on_the_seed_alone() -> None:
    first, again, other = (world.sample_batch(64, Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.images.shape == (64, 3, 32, 32)
    assert first.images.min() >= 0 and first.images.max() <= 255
    for column in ("kinds", "labels", "colours", "captions"):
        assert getattr(first, column).shape == (64,)
        assert torch.equal(getattr(first, column), getattr(again, column))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.captions, other.captions)


def test_single_image_batches_work() -> None:
    assert world.sample_batch(1, Generator().manual_seed(0)).images.shape == (1, 3, 32, 32)


def test_kinds_and_caption_families_occur_in_their_shares() -> None:
    batch = world.sample_batch(1500, Generator().manual_seed(0))
    shares = torch.bincount(batch.kinds, minlength=4) / 1500
    # Three standard errors of a share of .28 over 1,500 images are .035.
    assert shares.tolist() == pytest.approx([0.22, 0.28, 0.26, 0.24], abs=0.035)
    of_shapes = [world.captions()[index] for index in batch.captions[batch.kinds == 2].tolist()]
    class_only = sum(caption.colour == -1 for caption in of_shapes) / len(of_shapes)
    colour_only = sum(caption.label == -1 for caption in of_shapes) / len(of_shapes)
    assert (class_only, colour_only) == pytest.approx((0.35, 0.20), abs=0.075)


def test_every_image_carries_a_true_caption_among_the_expected_number() -> None:
    batch = world.sample_batch(200, Generator().manual_seed(1))
    true = pretrain.true_captions(batch)
    assert true.gather(1, batch.captions[:, None]).all()
    # Templates per class: 4, 3 and 3; a shape has 3 by class, 2 by class and colour, 2 by colour.
    assert torch.equal(true.sum(1), torch.tensor([4, 3, 7, 3])[batch.kinds])


def test_colours_keep_their_contrast() -> None:
    generator = Generator().manual_seed(2)
    first, second = world.random_colour_pair(500, generator)
    assert (first.sum(1) - second.sum(1)).abs().min() > 300
    assert (world.background_for(first, generator) - first).abs().sum(1).min() > 180
    red = world.class_colour(torch.zeros(500, dtype=torch.long), 25, generator)
    assert (red - torch.tensor([220, 40, 40])).abs().max() <= 25


def test_pose_turns_clockwise_leans_right_and_leaves_a_neutral_tile_alone() -> None:
    tile = torch.zeros(1, 64, 64)
    tile[0, 8:12, 30:34] = 1
    still = world.Pose(rotation=(0, 0), scale=(1, 1), shift=0)
    assert torch.allclose(world.warp(tile, still, Generator()), tile, atol=1e-4)
    turned = world.warp(tile, world.Pose(rotation=(90, 90), scale=(1, 1), shift=0), Generator())
    assert turned[0, 30:34, 52:56].min() > 0.99
    leaning = world.warp(tile, world.Pose((0, 0), (1, 1), shift=0, shear=(0.5, 0.5)), Generator())
    # The dot lies 22 pixels above the centre, so a shear of .5 moves it 11 to the right.
    columns = leaning[0].sum(0)
    assert (columns * torch.arange(64)).sum() / columns.sum() == pytest.approx(31.5 + 11, abs=0.1)


def test_textures_cover_the_expected_share_of_the_canvas() -> None:
    labels = torch.arange(10).repeat_interleave(40)
    masks = world.texture_masks(labels, Generator().manual_seed(3))
    assert masks.shape == (400, 64, 64)
    cover = dict(zip(world.TEXTURES, masks.view(10, -1).mean(1).tolist(), strict=True))
    expected = {
        "stripes": 0.5,
        "checkers": 0.5,
        "dots": math.pi * 0.3**2,
        "grid": 1 - 0.78**2,
        "zigzag": 0.5,
        "solid": 0.0,
        "gradient": 0.5,
        "noise": 0.5,
        "rings": 0.5,
        "bricks": 0.75 * 0.85,
    }
    assert cover == pytest.approx(expected, abs=0.04)


# ---------------------------------------------------------------------------------------- the six sets


@pytest.mark.parametrize("name", datasets.NAMES)
def test_set_has_the_documented_size_and_order(name: str, sets: Sets) -> None:
    images, labels = sets[name]
    counts = np.bincount(labels, minlength=len(datasets.class_names(name))).tolist()
    if name == "digits":
        assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert len(images) == 1797
    else:
        assert counts == [IMAGES_PER_CLASS[name]] * {"letters": 26, "colors": 8}.get(name, 10)
    assert images.shape == (len(labels), 32, 32, 3)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert (np.diff(labels) >= 0).all()
    assert images.std() > 30
    drawn = (GENERATED_POOL, GENERATED_LEAST, GENERATED_VAL, GENERATED_SEED)
    parts = splits.stratified(labels.tolist(), *drawn)
    assert tuple(parts.count(part) for part in splits.PARTS) == DATASETS[name].split_sizes


@pytest.mark.parametrize("name", datasets.NAMES)
def test_set_is_the_same_at_every_call(name: str, sets: Sets) -> None:
    images, labels = datasets.images_of(name)
    assert np.array_equal(images, sets[name][0])
    assert np.array_equal(labels, sets[name][1])


def test_class_names_are_words_of_the_world() -> None:
    assert datasets.class_names("digits") == datasets.class_names("displays")
    assert datasets.class_names("digits")[:3] == ["zero", "one", "two"]
    assert "".join(datasets.class_names("letters")) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert datasets.class_names("colors")[-1] == "gray"


@pytest.mark.parametrize("function", [datasets.class_names, datasets.images_of])
def test_unknown_set_is_refused_with_the_valid_names(function: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"'flowers'.*digits, letters, displays, outlines, textures, colors"):
        function("flowers")


# ------------------------------------------------------------------------------ the shipped checkpoint


def test_checkpoint_is_small_half_precision_and_documented() -> None:
    assert CHECKPOINT.stat().st_size < 2_000_000
    weights = load_file(CHECKPOINT)
    wide = {name for name, tensor in weights.items() if tensor.dtype != torch.float16}
    assert wide == {"logit_scale", "token_ids"}
    assert (weights["logit_scale"].dtype, weights["token_ids"].dtype) == (torch.float32, torch.int32)
    assert torch.equal(weights["token_ids"].long(), pretrain.restricted_vocabulary()[0])
    assert weights["token_embedding.weight"].shape == (82, 64)
    assert weights["positional_embedding"].shape == (10, 64)
    visual = sum(tensor.numel() for name, tensor in weights.items() if name.startswith("visual."))
    assert visual == 638_592
    with safe_open(CHECKPOINT, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    assert set(metadata) == {"recipe", "steps", "seed", "torch"}
    assert (metadata["steps"], metadata["seed"]) == (2800, 0)


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_prompt_fits_the_checkpoint(name: str) -> None:
    known = set(load_file(CHECKPOINT)["token_ids"].tolist())
    prompts = [PROMPTS[name].format(word) for word in datasets.class_names(name)]
    tokens = SimpleTokenizer(context_length=16)(prompts)
    assert (tokens != 0).sum(1).max() <= 10
    assert set(tokens.unique().tolist()) <= known


# Measured with the shipped checkpoint. A tolerance, because glyphs may change with FreeType.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", 37.7),
        ("letters", 53.5),
        ("displays", 44.6),
        ("outlines", 28.1),
        ("textures", 44.2),
        ("colors", 55.7),
    ],
)
def test_zero_shot_accuracy_is_as_measured(name: str, expected: float, sets: Sets, checkpoint: CLIP) -> None:
    images, labels = sets[name]
    pixels = pretrain.normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    texts = [PROMPTS[name].format(word) for word in datasets.class_names(name)]
    tokens = pretrain.restricted_vocabulary()[1][[world.caption_indices()[text] for text in texts]]
    with torch.no_grad():
        image_features = torch.cat([checkpoint.encode_image(part) for part in pixels.split(256)])
        predictions = (image_features @ checkpoint.encode_text(tokens, normalize=True).T).argmax(1).numpy()
    assert 100 * (predictions == labels).mean() == pytest.approx(expected, abs=3)


def test_checkpoint_has_learnt_the_world(checkpoint: CLIP) -> None:
    accuracy = pretrain.held_out_accuracy(checkpoint, images=600)
    assert set(accuracy) == {"digit", "letter", "shape", "texture", "colour"}
    assert min(accuracy.values()) > 80
    assert sum(accuracy.values()) / 5 > 90


# ---------------------------------------------------------------------------------------- pre-training


def test_loss_excludes_captions_that_are_true_of_other_images() -> None:
    own = torch.tensor([0, 1])
    plain = pretrain.contrastive_loss(torch.zeros(2, 2), own, torch.eye(2).bool())
    assert plain.item() == pytest.approx(math.log(2))
    # Caption 1 is true of image 0 as well: image 0 and caption 1 are left with a single candidate each.
    excluded = pretrain.contrastive_loss(torch.zeros(2, 2), own, torch.tensor([[True, True], [False, True]]))
    assert excluded.item() == pytest.approx(math.log(2) / 2)


def test_loss_spreads_a_caption_over_the_images_that_carry_it() -> None:
    logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    own = torch.tensor([0, 0, 1])
    loss = pretrain.contrastive_loss(logits, own, torch.tensor([[True, False], [True, False], [False, True]]))
    image_to_text = sum(math.log1p(math.exp(-margin)) for margin in (3, 1, 2)) / 3
    first = math.log(math.exp(3) + math.exp(1) + 1) - (3 + 1) / 2
    second = math.log(math.exp(2) + 2) - 2
    assert loss.item() == pytest.approx((image_to_text + (first + second) / 2) / 2, rel=1e-5)


def test_weight_decay_spares_embeddings_biases_and_norms(checkpoint: CLIP) -> None:
    decayed, free = pretrain.parameter_groups(checkpoint)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(checkpoint.parameters()))
    # Per block two matrices of attention and two of the MLP; besides, the patch and both output projections.
    assert len(decayed["params"]) == 5 * 4 + 3
    assert sum(parameter.numel() for parameter in free["params"]) < 0.05 * 753_000


def test_short_pretraining_lowers_the_loss_and_writes_a_loadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On fresh images the loss stays near chance for some eighty steps; one batch is learnt by heart sooner.
    batch = world.sample_batch(16, Generator().manual_seed(0))
    monkeypatch.setattr(world, "sample_batch", lambda count, generator: batch)
    model, losses = pretrain.train(steps=25, seed=1, batch_size=16)
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.6 * math.log(16) < np.mean(losses[:5])
    path = tmp_path / "new" / "tiny.safetensors"
    pretrain.save_checkpoint(model, path, {"steps": 25})
    assert list(path.parent.iterdir()) == [path]
    again = read_checkpoint(path)
    tokens = pretrain.restricted_vocabulary()[1][:20]
    with torch.no_grad():
        difference = again.encode_text(tokens) - model.encode_text(tokens)
    assert difference.abs().max() < 0.02
    assert again.logit_scale.item() == model.logit_scale.item()
