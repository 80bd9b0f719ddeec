"""Shifted test sets of the demo's letters, in parallel to ImageNet's four: 32 x 32 RGB images, nothing to train on.

    letters_redrawn      (as V2)      letters as they are, drawn again from another seed
    letters_sketch       (as Sketch)  contours by a wavering hand, grey pencil on light paper
    letters_hard         (as A)       faint, small, off the centre, turned and noisy; the letters that have a look-alike
    letters_renditions   (as R)       patterned, with a shadow, hollow or in coarse squares; every second letter

A set of some classes keeps their names and counts its labels from 0. The strengths of the styles were chosen by the
tiny CLIP's zero-shot accuracy alone: below that on plain letters of the same classes, far above chance. Fixed seeds.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from data_prep.demo import datasets, world
from data_prep.demo.world import Pose, choose, finish, paint, uniform

LOOK_ALIKES = "CDEFGHMNOPQRUV"
"""C and G, D and O, E and F, H and N, M and N, O and Q, P and R, U and V."""

HARD_POSE = Pose(rotation=(-15, 40), scale=(0.7, 1.0), shift=0.15, shear=(0.4, 0.4), aspect=0.15)
PATTERNS = tuple(world.TEXTURES.index(name) for name in ("stripes", "checkers", "dots", "bricks"))


def class_names(name: str) -> list[str]:
    """Return a shifted set's class names in label order, a selection of the letters in their order.

    Raises:
        ValueError: no shifted set has this name; the message lists the valid ones.
    """
    _check_name(name)
    return list(_SETS[name][1])


def images_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all images of a shifted set, ordered by class.

    Returns:
        images uint8 [N, 32, 32, 3] and labels int64 [N], ascending indices into class_names(name). Two calls
        return the same values; another version of FreeType, matplotlib or torch may round some differently.

    Raises:
        ValueError: no shifted set has this name; the message lists the valid ones.
    """
    _check_name(name)
    draw, classes, per_class, seed = _SETS[name]
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    letters = torch.tensor([world.LETTERS.index(letter) for letter in classes])[labels]
    images = draw(letters, Generator().manual_seed(seed))
    return images.round().byte().permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy()


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"unknown shifted demo set {name!r}; valid names: {', '.join(NAMES)}")


def _contours(masks: Tensor) -> Tensor:
    """Lines some 3 pixels wide along the borders of masks [B, 64, 64]."""
    largest = F.max_pool2d(masks[:, None], 3, stride=1, padding=1)
    smallest = -F.max_pool2d(-masks[:, None], 3, stride=1, padding=1)
    return (largest - smallest)[:, 0]


def _waver(masks: Tensor, pixels: float, generator: Generator) -> Tensor:
    """Masks [B, 64, 64] displaced by sine waves of that amplitude and .08 to .2 rad per pixel."""
    half = world.CANVAS / 2
    frequency = uniform(0.08, 0.2, (2, len(masks), 1, 1), generator)
    phase = uniform(0, 2 * math.pi, (2, len(masks), 1, 1), generator)
    axis = torch.arange(world.CANVAS) - (world.CANVAS - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    moved = torch.stack(
        [x + pixels * torch.sin(frequency[0] * y + phase[0]), y + pixels * torch.sin(frequency[1] * x + phase[1])], -1
    )
    return F.grid_sample(masks[:, None], moved / half, align_corners=False)[:, 0]


def _sketch(letters: Tensor, generator: Generator) -> Tensor:
    """Wavering contours whose pencil catches on the paper's grain."""
    lines = _contours(_waver(datasets.letter_masks(letters, generator), 3.0, generator))
    lines = lines * uniform(0.5, 1, tuple(lines.shape), generator)
    pencil, paper = (uniform(low, high, (len(letters), 1), generator) for low, high in ((20, 110), (200, 250)))
    return finish(paint(lines, pencil.expand(-1, 3), paper.expand(-1, 3)), generator, low_resolution=0.0)


def _hard(letters: Tensor, generator: Generator) -> Tensor:
    """Small letters far from the usual pose, in two colours that differ by 50 to 100 per channel, much degraded."""
    masks = datasets.letter_masks(letters, generator, HARD_POSE)
    middle = uniform(60, 195, (len(letters), 3), generator)
    sign = 2 * choose(len(letters), 2, generator)[:, None] - 1
    half = sign * uniform(25, 50, (len(letters), 3), generator)
    return finish(paint(masks, middle + half, middle - half), generator, low_resolution=0.3, noise=25)


def _renditions(letters: Tensor, generator: Generator) -> Tensor:
    """One of four styles each: a pattern, a cast shadow, a hollow letter, or squares of four pixels."""
    count = len(letters)
    masks = datasets.letter_masks(letters, generator)
    patterns = world.texture_masks(torch.tensor(PATTERNS)[choose(count, len(PATTERNS), generator)], generator)
    styles = torch.stack(
        [
            masks * (1 - 0.8 * patterns),
            torch.maximum(masks, 0.6 * F.pad(masks, (5, -5, 5, -5))),
            _contours(masks),
            F.avg_pool2d(masks[:, None], 4)[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2),
        ]
    )
    chosen = styles[choose(count, len(styles), generator), torch.arange(count)]
    return finish(paint(chosen, *world.random_colour_pair(count, generator)), generator, low_resolution=0.1)


# What draws each set, its classes, its images per class and its seed.
_SETS: dict[str, tuple[Callable[[Tensor, Generator], Tensor], str, int, int]] = {
    "letters_redrawn": (datasets.draw_letters, "".join(world.LETTERS), 40, 1001),
    "letters_sketch": (_sketch, "".join(world.LETTERS), 40, 1002),
    "letters_hard": (_hard, LOOK_ALIKES, 60, 1003),
    "letters_renditions": (_renditions, "".join(world.LETTERS[::2]), 60, 1004),
}
NAMES: tuple[str, ...] = tuple(_SETS)
