"""The pre-training world of the tiny CLIP: digits, letters, coloured shapes and textures with their captions.

Everything is drawn on a 64 x 64 canvas and averaged to 32 x 32. Pillow renders glyphs and shapes once into
atlases; an image is then an affine sample of one tile, or, for textures, a formula on rotated coordinates. So
a batch costs a few vectorised torch operations, and every training step sees fresh images.

Pixel values are floats in 0..255 throughout, RGB, channel first. Every random draw takes a torch.Generator,
so a seed fixes the images on one machine (other versions of FreeType or torch may round differently).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor

CANVAS = 64
SIZE = 32

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart", "crescent", "hexagon")
TEXTURES = (
    *("stripes", "checkers", "dots", "grid", "zigzag"),
    *("solid", "gradient", "noise", "rings", "bricks"),
)
COLOUR_LEVELS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (230, 215, 40),
    "purple": (140, 50, 170),
    "orange": (240, 140, 30),
    "white": (240, 240, 240),
    "gray": (128, 128, 128),
}
COLOURS = tuple(COLOUR_LEVELS)

KINDS = ("digit", "letter", "shape", "texture")
KIND_SHARES = (0.22, 0.28, 0.26, 0.24)
CLASSES = {"digit": DIGITS, "letter": LETTERS, "shape": SHAPES, "texture": TEXTURES}

# Seventeen typefaces; the downstream set "letters" uses other glyphs of some of them, double-struck capitals.
FONT_FILES = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Italic", "Bol")),
    "cmr10.ttf",
    "cmss10.ttf",
)
GLYPHS = "0123456789" + "".join(LETTERS)

# Each kind's families of captions: their share of the images, and equally frequent templates.
CAPTION_FAMILIES: dict[str, tuple[tuple[float, tuple[str, ...]], ...]] = {
    "digit": ((1.0, ("a photo of the digit {}.", "the number {}.", "{}.", "a handwritten {}.")),),
    "letter": ((1.0, ("a photo of the letter {}.", "the letter {}.", "letter {}.")),),
    "shape": (
        (0.35, ("a {}.", "a drawing of a {}.", "a photo of a {}.")),
        (0.45, ("a photo of a {colour} {}.", "a {colour} {}.")),
        (0.20, ("a photo of a {colour} shape.", "a {colour} thing.")),
    ),
    "texture": ((1.0, ("a {} texture.", "a photo of {}.", "{} pattern.")),),
}


@dataclass(frozen=True)
class Caption:
    """A caption and what it asserts: a kind, and class and colour indices (-1 where it leaves them open)."""

    text: str
    kind: int
    label: int
    colour: int


@dataclass(frozen=True)
class Batch:
    """Images float [B, 3, 32, 32] in 0..255; kinds, labels, colours (-1: none), caption indices int64 [B]."""

    images: Tensor
    kinds: Tensor
    labels: Tensor
    colours: Tensor
    captions: Tensor


@dataclass(frozen=True)
class Pose:
    """Ranges of a random affine pose: rotation in degrees (positive clockwise), scale, shift in half canvases
    (both signs), shear (positive leans to the right, as italics do) and log aspect ratio (both signs).
    """

    rotation: tuple[float, float]
    scale: tuple[float, float]
    shift: float = 0.06
    shear: tuple[float, float] = (0.0, 0.0)
    aspect: float = 0.0


GLYPH_POSE = Pose(rotation=(-10, 10), scale=(0.9, 1.25), shear=(-0.2, 0.2), aspect=0.15)
SHAPE_POSE = Pose(rotation=(-20, 20), scale=(0.75, 1.1))


@cache
def captions() -> tuple[Caption, ...]:
    """Return the 354 distinct captions; a batch's caption indices refer to this order."""
    table = []
    for index, kind in enumerate(KINDS):
        for _, templates in CAPTION_FAMILIES[kind]:
            # A family names the class, the colour or both; -1 stands for what it leaves open.
            labels = range(len(CLASSES[kind])) if "{}" in templates[0] else (-1,)
            colours = range(len(COLOURS)) if "{colour}" in templates[0] else (-1,)
            for label, colour, template in product(labels, colours, templates):
                text = template.format(CLASSES[kind][label], colour=COLOURS[colour])
                table.append(Caption(text, index, label, colour))
    return tuple(table)


@cache
def caption_indices() -> dict[str, int]:
    """Return each caption's index in captions()."""
    return {caption.text: index for index, caption in enumerate(captions())}


def uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Return floats drawn uniformly from low..high."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def choose(count: int, choices: int, generator: Generator) -> Tensor:
    """Return int64 [count] drawn uniformly from 0..choices-1."""
    return torch.randint(choices, (count,), generator=generator)


def glyph_tile(font_file: str, character: str, pixels: int) -> np.ndarray:
    """Return uint8 [64, 64]: the character in white on black at a font size in pixels, its ink centred.

    Raises:
        OSError: matplotlib ships no such font file.
    """
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font_file), pixels)
    tile = Image.new("L", (CANVAS, CANVAS))
    left, top, right, bottom = font.getbbox(character)
    corner = ((CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2)
    ImageDraw.Draw(tile).text(corner, character, fill=255, font=font)
    return np.asarray(tile)


def polygon_tile(polygons: list[tuple[list[tuple[float, float]], int]], radius: float) -> np.ndarray:
    """Return uint8 [64, 64]: polygons with their levels (0..255), painted in turn, anti-aliased.

    Args:
        polygons: vertices (x, y) around the centre, y downwards, in units of the radius, and a level each.
        radius: as a share of the canvas.
    """
    enlargement = 8
    canvas = Image.new("L", (CANVAS * enlargement,) * 2)
    centre, unit = CANVAS * enlargement / 2, CANVAS * enlargement * radius
    for points, level in polygons:
        vertices = [(centre + unit * x, centre + unit * y) for x, y in points]
        ImageDraw.Draw(canvas).polygon(vertices, fill=level)
    return np.asarray(canvas.resize((CANVAS, CANVAS), Image.Resampling.BOX))


@cache
def glyph_atlas() -> Tensor:
    """Return float [17, 36, 64, 64] in 0..1: the digits and capitals of every typeface at 50 pixels."""
    tiles = [[glyph_tile(font, glyph, 50) for glyph in GLYPHS] for font in FONT_FILES]
    return torch.from_numpy(np.array(tiles)).float() / 255


def _star_polygon(radii: list[float], first_angle: float = -90) -> list[tuple[float, float]]:
    """Vertices at equal angles around the origin, one per radius; -90 degrees points upwards."""
    angles = [math.radians(first_angle + 360 * i / len(radii)) for i in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart_point(turn: float) -> tuple[float, float]:
    """A point of the heart curve at an angle in radians."""
    upwards = 13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)
    return math.sin(turn) ** 3, -upwards / 16


@cache
def shape_atlas() -> Tensor:
    """Return float [10, 64, 64] in 0..1: filled shapes in the order of SHAPES, radius .36 of the canvas."""
    disc, arm = _star_polygon([1.0] * 180), 0.3
    across = [(-1.0, -arm), (1.0, -arm), (1.0, arm), (-1.0, arm)]
    polygons = {
        "circle": [(disc, 255)],
        "square": [(_star_polygon([1.12] * 4, first_angle=-45), 255)],
        "triangle": [(_star_polygon([1.1] * 3), 255)],
        "star": [(_star_polygon([1.1, 0.44] * 5), 255)],
        "cross": [(across, 255), ([(y, x) for x, y in across], 255)],
        "ring": [(disc, 255), ([(0.6 * x, 0.6 * y) for x, y in disc], 0)],
        "diamond": [([(0, -1.1), (0.72, 0), (0, 1.1), (-0.72, 0)], 255)],
        "heart": [([_heart_point(2 * math.pi * i / 180) for i in range(180)], 255)],
        "crescent": [(disc, 255), ([(0.85 * x + 0.45, 0.85 * y) for x, y in disc], 0)],
        "hexagon": [(_star_polygon([1.0] * 6), 255)],
    }
    return torch.from_numpy(np.array([polygon_tile(polygons[name], 0.36) for name in SHAPES])).float() / 255


def warp(tiles: Tensor, pose: Pose, generator: Generator) -> Tensor:
    """Place tiles, float [B, 64, 64], on canvases of the same size, each in a random pose; zero elsewhere."""
    count = len(tiles)
    angle = uniform(*pose.rotation, (count,), generator) * (math.pi / 180)
    scale = uniform(*pose.scale, (count,), generator)
    shear = uniform(*pose.shear, (count,), generator)
    aspect = torch.exp(uniform(-pose.aspect, pose.aspect, (count,), generator) / 2)
    shift = uniform(-pose.shift, pose.shift, (count, 2), generator)
    cosine, sine, ones, zeros = angle.cos(), angle.sin(), torch.ones(count), torch.zeros(count)
    # y points downwards: this rotation is clockwise, and a lean to the right moves y < 0, the top, right.
    rotation = torch.stack([cosine, -sine, sine, cosine], 1).view(count, 2, 2)
    lean = torch.stack([ones, -shear, zeros, ones], 1).view(count, 2, 2)
    stretch = torch.stack([scale * aspect, zeros, zeros, scale / aspect], 1).view(count, 2, 2)
    # The sampling grid asks where on the tile each canvas pixel lies: the inverse of the pose.
    inverse = torch.linalg.inv(rotation @ lean @ stretch)
    theta = torch.cat([inverse, -inverse @ shift[:, :, None]], 2)
    grid = F.affine_grid(theta, [count, 1, CANVAS, CANVAS], align_corners=False)
    return F.grid_sample(tiles[:, None], grid, align_corners=False)[:, 0]


def paint(masks: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Mix colours: masks [B, 64, 64] in 0..1, colours [B, 3] in 0..255; returns [B, 3, 64, 64]."""
    return torch.lerp(background[:, :, None, None], foreground[:, :, None, None], masks[:, None])


def random_colour_pair(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return two uniform colours, float [count, 3] each, whose channel sums differ by more than 300."""
    first, second = torch.zeros(count, 3), torch.zeros(count, 3)
    open_rows = torch.arange(count)
    while len(open_rows):
        first[open_rows] = uniform(0, 255, (len(open_rows), 3), generator)
        second[open_rows] = uniform(0, 255, (len(open_rows), 3), generator)
        open_rows = open_rows[(first[open_rows].sum(1) - second[open_rows].sum(1)).abs() <= 300]
    return first, second


def class_colour(colours: Tensor, spread: float, generator: Generator) -> Tensor:
    """Return float [B, 3]: colours by index (int64 [B]), up to `spread` away per channel, within 0..255."""
    levels = torch.tensor(list(COLOUR_LEVELS.values())).float()[colours]
    return (levels + uniform(-spread, spread, (len(colours), 3), generator)).clamp(0, 255)


def background_for(foreground: Tensor, generator: Generator) -> Tensor:
    """Return uniform colours [B, 3] at L1 distance above 180 from the foreground [B, 3]."""
    background = torch.zeros_like(foreground)
    open_rows = torch.arange(len(foreground))
    while len(open_rows):
        background[open_rows] = uniform(0, 255, (len(open_rows), 3), generator)
        open_rows = open_rows[(background[open_rows] - foreground[open_rows]).abs().sum(1) <= 180]
    return background


def _duty(coordinate: Tensor, share: float = 0.5) -> Tensor:
    """Whether a coordinate, in periods, lies in the first `share` of its period; bool of the same shape."""
    return torch.remainder(coordinate, 1) < share


def _centred(coordinate: Tensor) -> Tensor:
    """A coordinate's offset, in periods, from the middle of its period: -.5 to .5."""
    return torch.remainder(coordinate, 1) - 0.5


# Each texture's mask from coordinates x, y [B, 64, 64] in periods, the period p [B, 1, 1] in pixels, noise.
# Bricks are one period long and half a period high, and every other row is displaced by half a brick.
_TEXTURE_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "stripes": lambda x, y, p, noise: _duty(x),
    "checkers": lambda x, y, p, noise: _duty(x) ^ _duty(y),
    "dots": lambda x, y, p, noise: _centred(x) ** 2 + _centred(y) ** 2 < 0.3**2,
    "grid": lambda x, y, p, noise: _duty(x, 0.22) | _duty(y, 0.22),
    "zigzag": lambda x, y, p, noise: _duty(x + 2 * _centred(y).abs()),
    "solid": lambda x, y, p, noise: torch.zeros_like(x),
    "gradient": lambda x, y, p, noise: (x * p / CANVAS + 0.5).clamp(0, 1),
    "noise": lambda x, y, p, noise: noise.repeat_interleave(2, 1).repeat_interleave(2, 2),
    "rings": lambda x, y, p, noise: _duty(torch.hypot(x, y)),
    "bricks": lambda x, y, p, noise: ~_duty(2 * y, 0.25) & ~_duty(x + 0.5 * _duty(y), 0.15),
}


def texture_masks(labels: Tensor, generator: Generator, wave_amplitude: float = 0.0) -> Tensor:
    """Return float [B, 64, 64] in 0..1: textures at any rotation, with a period of 8 to 16 canvas pixels.

    Args:
        labels: int64 [B], indices into TEXTURES.
        wave_amplitude: pixels by which sine waves (.08 to .2 rad per pixel) displace coordinates; 0 for none.
    """
    count = len(labels)
    axis = torch.arange(CANVAS) - (CANVAS - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = uniform(0, 2 * math.pi, (count, 1, 1), generator)
    period = uniform(8, 16, (count, 1, 1), generator)
    phase = uniform(-0.5, 0.5, (2, count, 1, 1), generator) * period
    u = angle.cos() * x + angle.sin() * y + phase[0]
    v = angle.cos() * y - angle.sin() * x + phase[1]
    if wave_amplitude:
        frequency = uniform(0.08, 0.2, (2, count, 1, 1), generator)
        offset = uniform(0, 2 * math.pi, (2, count, 1, 1), generator)
        bend_u, bend_v = torch.sin(frequency[0] * v + offset[0]), torch.sin(frequency[1] * u + offset[1])
        u, v = u + wave_amplitude * bend_u, v + wave_amplitude * bend_v
    # Half the canvas's resolution, so that averaging down to 32 x 32 keeps the noise as it is.
    noise = torch.rand((count, SIZE, SIZE), generator=generator)
    masks = torch.empty(count, CANVAS, CANVAS)
    for label in labels.unique().tolist():
        rows = labels == label
        formula, p = _TEXTURE_FORMULAS[TEXTURES[label]], period[rows]
        masks[rows] = formula(u[rows] / p, v[rows] / p, p, noise[rows]).float()
    return masks


def finish(
    canvases: Tensor, generator: Generator, low_resolution: float, blur: float = 1.0, noise: float = 15.0
) -> Tensor:
    """Average canvases to 32 x 32 and degrade them as a cheap camera would.

    Args:
        canvases: float [B, 3, 64, 64] in 0..255.
        low_resolution: share of the images reduced to 8, 10 or 12 pixels and enlarged again.
        blur: largest standard deviation (pixels) of the Gaussian blur that half of the images get.
        noise: largest standard deviation (of 255) of the Gaussian noise.

    Returns:
        float [B, 3, 32, 32] within 0..255.
    """
    images = F.avg_pool2d(canvases, 2)
    count = len(images)
    reduced = uniform(0, 1, (count,), generator) < low_resolution
    width_index = choose(count, 3, generator)
    for index, width in enumerate((8, 10, 12)):
        rows = reduced & (width_index == index)
        if rows.any():
            small = F.interpolate(images[rows], size=width, mode="area")
            images[rows] = F.interpolate(small, size=SIZE, mode="bicubic", align_corners=False)
    # Separable blur: two products with a matrix per image; normalised rows, so that edges keep their level.
    blurred = uniform(0, 1, (count, 1, 1), generator) < 0.5
    sigma = uniform(0, blur, (count, 1, 1), generator).clamp(min=0.05) * blurred + 0.05 * ~blurred
    axis = torch.arange(SIZE)
    kernel = torch.exp(-((axis[:, None] - axis[None]) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(2, keepdim=True))[:, None]
    images = kernel @ images @ kernel.transpose(2, 3)
    levels = uniform(0, noise, (count, 1, 1, 1), generator)
    return (images + levels * torch.randn(images.shape, generator=generator)).clamp(0, 255)


def _draw(kind: str, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images [B, 3, 32, 32] of one kind's classes (int64 [B]), and their colour indices (-1: none)."""
    colours = torch.full_like(labels, -1)
    if kind == "shape":
        colours = choose(len(labels), len(COLOURS), generator)
        masks = warp(shape_atlas()[labels], SHAPE_POSE, generator)
        foreground = class_colour(colours, 25, generator)
        canvases = paint(masks, foreground, background_for(foreground, generator))
        return finish(canvases, generator, low_resolution=0.2), colours
    if kind == "texture":
        masks, low_resolution = texture_masks(labels, generator), 0.1
    else:
        fonts = choose(len(labels), len(FONT_FILES), generator)
        glyphs = labels + GLYPHS.index("0" if kind == "digit" else "A")
        masks, low_resolution = warp(glyph_atlas()[fonts, glyphs], GLYPH_POSE, generator), 0.3
    canvases = paint(masks, *random_colour_pair(len(labels), generator))
    return finish(canvases, generator, low_resolution), colours


def _caption_index(kind: str, label: int, colour: int, draw: float) -> int:
    """The index of the caption that a uniform draw in 0..1 selects for one image."""
    for share, family in CAPTION_FAMILIES[kind]:
        if draw < share:
            template = family[int(draw / share * len(family))]
            return caption_indices()[template.format(CLASSES[kind][label], colour=COLOURS[colour])]
        draw -= share
    raise AssertionError(f"the caption shares of {kind} do not sum to one")


def sample_batch(count: int, generator: Generator) -> Batch:
    """Draw `count` captioned images; kinds occur with probabilities KIND_SHARES and come in their order."""
    shares = torch.tensor(KIND_SHARES)
    kinds = torch.multinomial(shares, count, replacement=True, generator=generator).sort().values
    parts = []
    for index in kinds.unique().tolist():
        labels = choose(int((kinds == index).sum()), len(CLASSES[KINDS[index]]), generator)
        parts.append((labels, *_draw(KINDS[index], labels, generator)))
    labels, images, colours = (torch.cat(column) for column in zip(*parts, strict=True))
    draws = torch.rand(count, generator=generator).tolist()
    rows = zip(kinds.tolist(), labels.tolist(), colours.tolist(), draws, strict=True)
    captions_drawn = [_caption_index(KINDS[kind], label, colour, draw) for kind, label, colour, draw in rows]
    return Batch(images, kinds, labels, colours, torch.tensor(captions_drawn))
