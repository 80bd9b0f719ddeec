"""Draws the images of this example: 30 each of circle, square and star, in one folder per class.

python examples/own_data/draw.py my_images
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES, IMAGES, SIDE = ("circle", "square", "star"), 30, 48


def corners(name: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Corners of a shape around (x, y), in pixels; `turn` in radians."""
    number = {"circle": 60, "square": 4, "star": 10}[name]
    angles = [turn + 2 * math.pi * corner / number for corner in range(number)]
    reach = [radius * (0.45 if name == "star" and corner % 2 else 1) for corner in range(number)]
    return [(x + far * math.cos(one), y + far * math.sin(one)) for one, far in zip(angles, reach, strict=True)]


def main(folder: Path) -> None:
    """Write the images below `folder`."""
    chance = random.Random(1)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES):
            ground, ink = chance.randrange(30, 90), tuple(chance.randrange(150, 256) for _ in range(3))
            image = Image.new("RGB", (SIDE, SIDE), (ground, ground, ground))
            place = [SIDE / 2 + chance.uniform(-4, 4) for _ in range(2)]
            shape = corners(name, *place, radius=chance.uniform(12, 18), turn=chance.uniform(-0.4, 0.4))
            ImageDraw.Draw(image).polygon(shape, fill=ink)
            image.save(folder / name / f"{number:02d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
