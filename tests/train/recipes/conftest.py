"""Pictures with boxes for recipes of detectors."""

import numpy as np
import pytest
from PIL import Image

XML = """<annotation><size><width>80</width><height>60</height><depth>3</depth></size>{}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Pascal VOC's layout: six pictures of 80 x 60 with up to two cells in each."""
    folder = tmp_path_factory.mktemp("cells")
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{number}.jpg")
        boxes = [("rbc", 10, 8, 40, 38), ("wbc", 50, 20, 71, 50)][: number % 3]
        objects = "".join(OBJECT.format(*box) for box in boxes)
        (folder / "Annotations" / f"{number}.xml").write_text(XML.format(objects))
    for part, names in (("train", "0\n1\n2\n4\n"), ("val", "3\n5\n")):
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text(names)
    return f"folder:{folder}"
