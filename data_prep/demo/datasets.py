"""The demo's six downstream sets: 32 x 32 RGB images of classes the tiny CLIP knows, in an unfamiliar guise.

digits are real scans (scikit-learn's load_digits), letters are glyphs of typefaces that pre-training never
shows; the others are drawn. Each set departs from the pre-training world in a systematic way, such as a
constant slant, a colour cast or contours in place of filled shapes, which a few labelled images can teach.
Generated sets have a fixed seed.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from data_prep.demo import world
from data_prep.demo.world import Pose, choose, finish, paint, uniform, warp

NAMES: tuple[str, ...] = ("digits", "letters", "displays", "outlines", "textures", "colors")
SEED = 777

_CLASS_NAMES = {
    "digits": world.DIGITS,
    "letters": world.LETTERS,
    "displays": world.DIGITS,
    "outlines": world.SHAPES,
    "textures": world.TEXTURES,
    "colors": world.COLOURS,
}

# The six faces among matplotlib's that hold every double-struck capital.
DOUBLE_STRUCK = "𝔸𝔹ℂ𝔻𝔼𝔽𝔾ℍ𝕀𝕁𝕂𝕃𝕄ℕ𝕆ℙℚℝ𝕊𝕋𝕌𝕍𝕎𝕏𝕐ℤ"
DOUBLE_STRUCK_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "STIXGeneral.ttf",
)

# Each digit's lit segments under their usual letters: a at the top, clockwise to f, g in the middle.
# Sizes are shares of the canvas.
LIT_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
SEGMENT_STROKES = (0.07, 0.10, 0.13)
SEGMENT_GAP = 0.012
DISPLAY_WIDTH, DISPLAY_HEIGHT = 0.36, 0.62
UNLIT_LEVEL = 0.15
LED_LEVELS = ((255, 40, 30), (50, 255, 70), (60, 120, 255), (255, 170, 30), (240, 240, 255), (40, 230, 240))
LCD_LEVEL = (150, 170, 135)

# Slant and rotation of the letters add up to a lean of some 30 degrees to the right.
LETTER_POSE = Pose(rotation=(-5, 25), scale=(0.9, 1.25), shear=(0.4, 0.4), aspect=0.15)
DISPLAY_POSE = Pose(rotation=(-8, 8), scale=(0.9, 1.25), shear=(0.15, 0.15))
TURNED_SHAPE_POSE = Pose(rotation=(-30, 30), scale=(0.75, 1.1))


def class_names(name: str) -> list[str]:
    """Return a set's class names in label order, words of the pre-training world.

    Raises:
        ValueError: no set has this name; the message lists the valid ones.
    """
    _check_name(name)
    return list(_CLASS_NAMES[name])


def images_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all images of a set, ordered by class.

    Returns:
        images uint8 [N, 32, 32, 3] and labels int64 [N], ascending indices into class_names(name). Two calls
        return the same values; another version of FreeType, matplotlib or torch may round some differently.

    Raises:
        ValueError: no set has this name; the message lists the valid ones.
    """
    _check_name(name)
    if name == "digits":
        return _scanned_digits()
    draw, per_class = _GENERATED[name]
    labels = torch.arange(len(_CLASS_NAMES[name])).repeat_interleave(per_class)
    images = draw(labels, Generator().manual_seed(SEED))
    return images.round().byte().permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy()


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"unknown demo set {name!r}; valid names: {', '.join(NAMES)}")


def _scanned_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten digits, 8 x 8 of 17 grey levels, enlarged to 32 x 32 and repeated as RGB."""
    scans = load_digits()
    order = np.argsort(scans.target, kind="stable")
    levels = (scans.images[order] * (255 / 16)).round().astype(np.uint8)
    size = (world.SIZE, world.SIZE)
    enlarged = [Image.fromarray(scan).resize(size, Image.Resampling.BICUBIC) for scan in levels]
    grey = np.stack([np.asarray(image) for image in enlarged])
    return np.repeat(grey[..., None], 3, axis=3), scans.target[order].astype(np.int64)


def letter_masks(labels: Tensor, generator: Generator, pose: Pose = LETTER_POSE) -> Tensor:
    """Masks [B, 64, 64] of double-struck capitals, by default all with the same strong slant."""
    tiles = [[world.glyph_tile(font, glyph, 44) for glyph in DOUBLE_STRUCK] for font in DOUBLE_STRUCK_FONTS]
    atlas = torch.from_numpy(np.array(tiles)).float() / 255
    fonts = choose(len(labels), len(DOUBLE_STRUCK_FONTS), generator)
    return warp(atlas[fonts, labels], pose, generator)


def draw_letters(labels: Tensor, generator: Generator) -> Tensor:
    """Double-struck capitals [B, 3, 32, 32], indices into LETTERS, in any two colours."""
    masks = letter_masks(labels, generator)
    canvases = paint(masks, *world.random_colour_pair(len(labels), generator))
    return finish(canvases, generator, low_resolution=0.2, noise=20)


def _segment_polygons(stroke: float) -> dict[str, list[tuple[float, float]]]:
    """The seven segments as hexagons, in shares of the canvas around its centre, a gap at every joint."""
    half = stroke / 2
    right, bottom = DISPLAY_WIDTH / 2 - half, DISPLAY_HEIGHT / 2 - half

    def bar(start: float, stop: float) -> list[tuple[float, float]]:
        """A bar along the first axis from one joint to the next, pointed at both ends."""
        start, stop = start + SEGMENT_GAP, stop - SEGMENT_GAP
        upper = [(start, 0.0), (start + half, -half), (stop - half, -half)]
        return [*upper, (stop, 0.0), (stop - half, half), (start + half, half)]

    across, along = bar(-right, right), bar(0.0, bottom)
    upright = [(y, x) for x, y in along]
    return {
        "a": [(x, y - bottom) for x, y in across],
        "b": [(x + right, y - bottom) for x, y in upright],
        "c": [(x + right, y) for x, y in upright],
        "d": [(x, y + bottom) for x, y in across],
        "e": [(x - right, y) for x, y in upright],
        "f": [(x - right, y - bottom) for x, y in upright],
        "g": across,
    }


def _display_atlas() -> Tensor:
    """Float [3, 10, 64, 64]: digits by stroke width; lit segments 1, unlit ones faint as on real displays."""
    tiles: list[np.ndarray] = []
    for stroke in SEGMENT_STROKES:
        segments = _segment_polygons(stroke)
        everything = world.polygon_tile([(points, 255) for points in segments.values()], 1.0)
        for lit in LIT_SEGMENTS:
            digit = world.polygon_tile([(segments[letter], 255) for letter in lit], 1.0)
            tiles.append(np.maximum(digit / 255, UNLIT_LEVEL * everything / 255))
    return torch.from_numpy(np.array(tiles)).float().view(-1, len(LIT_SEGMENTS), world.CANVAS, world.CANVAS)


def _displays(labels: Tensor, generator: Generator) -> Tensor:
    """Seven-segment digits: luminous on dark (70 %), or dark on a grey-green liquid crystal."""
    count = len(labels)
    strokes = choose(count, len(SEGMENT_STROKES), generator)
    masks = warp(_display_atlas()[strokes, labels], DISPLAY_POSE, generator)
    lamps = torch.tensor(LED_LEVELS).float()[choose(count, len(LED_LEVELS), generator)]
    dark = uniform(0, 50, (count, 3), generator)
    crystal = torch.tensor(LCD_LEVEL) + uniform(-20, 20, (count, 3), generator)
    luminous = uniform(0, 1, (count, 1), generator) < 0.7
    canvases = paint(masks, torch.where(luminous, lamps, dark), torch.where(luminous, dark, crystal))
    return finish(canvases, generator, low_resolution=0.3, blur=1.2, noise=20)


def _outlines(labels: Tensor, generator: Generator) -> Tensor:
    """Shapes of which the contour stands out and the interior is faint."""
    count = len(labels)
    filled = warp(world.shape_atlas()[labels], TURNED_SHAPE_POSE, generator)[:, None]
    largest = F.max_pool2d(filled, 5, stride=1, padding=2)
    smallest = -F.max_pool2d(-filled, 5, stride=1, padding=2)
    interior = uniform(0.2, 0.5, (count, 1, 1, 1), generator)
    masks = torch.maximum(largest - smallest, interior * filled)[:, 0]
    foreground = world.class_colour(choose(count, len(world.COLOURS), generator), 25, generator)
    canvases = paint(masks, foreground, world.background_for(foreground, generator))
    return finish(canvases, generator, low_resolution=0.3, noise=20)


def _textures(labels: Tensor, generator: Generator) -> Tensor:
    """Textures on wavy coordinates, in two similar colours: every channel differs by 90, either way."""
    masks = world.texture_masks(labels, generator, wave_amplitude=3.0)
    signs = 2 * torch.randint(2, (len(labels), 3), generator=generator) - 1
    middle = uniform(45, 210, (len(labels), 3), generator)
    return finish(paint(masks, middle + 45 * signs, middle - 45 * signs), generator, low_resolution=0.2)


def _colors(labels: Tensor, generator: Generator) -> Tensor:
    """Coloured shapes in warm, dim light: channels scaled at random, blue the most, and contrast reduced."""
    count = len(labels)
    shapes = choose(count, len(world.SHAPES), generator)
    masks = warp(world.shape_atlas()[shapes], TURNED_SHAPE_POSE, generator)
    foreground = world.class_colour(labels, 40, generator)
    canvases = paint(masks, foreground, uniform(0, 255, (count, 3), generator))
    red_green, blue = uniform(0.7, 1.1, (count, 2), generator), uniform(0.5, 0.9, (count, 1), generator)
    cast = torch.cat([red_green, blue], 1)[:, :, None, None]
    canvases = (canvases * cast).clamp(0, 255) * 0.7 + 20
    return finish(canvases, generator, low_resolution=0.2, noise=30)


# What draws each generated set, and its images per class.
_GENERATED = {
    "letters": (draw_letters, 60),
    "displays": (_displays, 120),
    "outlines": (_outlines, 120),
    "textures": (_textures, 120),
    "colors": (_colors, 120),
}
