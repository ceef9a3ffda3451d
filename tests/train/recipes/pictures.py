"""Folders of generated pictures, for recipes that want photographs."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def write_pictures(folder: Path, *, train: int, val: int) -> str:
    """FOLDER/{train,val}/CLASS with so many noisy pictures of each color -> its source."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for channel, name in enumerate(reversed(CLASSES)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                size = generator.integers(48, 81, 2)
                pixels = generator.integers(0, 128, (*size, 3))
                pixels[..., channel] += 127
                picture = Image.fromarray(pixels.astype(np.uint8))
                picture.save(folder / part / name / f"{number}.png")
    return f"folder:{folder}"
