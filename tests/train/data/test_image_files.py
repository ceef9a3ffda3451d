"""Every kind of image file becomes one uint8 shape, and a hostile one a single line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from train.data import image_files
from train.data.image_files import check_size, has_image_header, read_image

GRADIENT = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_an_image_of_the_wanted_size_is_itself(form):
    options = {"lossless": True} if form == "WEBP" else {}
    file = encoded(Image.fromarray(GRADIENT), form, **options)
    np.testing.assert_array_equal(read_image(file, size=(6, 4, 3)), GRADIENT)


def test_short_side_is_resized_and_the_center_cut():
    # 20 x 60: thirds of 10, 100 and 200; at 10 x 10 only the middle third is left, halved.
    thirds = np.repeat(np.uint8([10, 100, 200]), 20) * np.ones([20, 1], np.uint8)
    for image in (thirds, thirds.T):
        got = read_image(encoded(Image.fromarray(np.ascontiguousarray(image))), size=(10, 10, 1))
        assert got.shape == (10, 10, 1)
        np.testing.assert_array_equal(got[2:-2, 2:-2], 100)
    # Asked for 10 x 30 it is the whole of it.
    whole = read_image(encoded(Image.fromarray(thirds)), size=(10, 30, 1))[5, :, 0]
    np.testing.assert_array_equal(whole[[0, 8, 11, 18, 21, 29]], [10, 10, 100, 100, 200, 200])


def test_shrinking_is_antialiased_and_growing_interpolates():
    stripes = np.tile(np.uint8([[0, 255]]), [64, 32])
    shrunk = read_image(encoded(Image.fromarray(stripes)), size=(8, 8, 1))
    assert np.abs(shrunk.astype(int) - 127).max() <= 8  # one stripe alone is 0 or 255
    grown = read_image(encoded(Image.fromarray(np.uint8([[0, 255], [0, 255]]))), size=(8, 8, 1))
    assert (np.diff(grown[4, :, 0].astype(int)) >= 0).all() and len(set(grown[4, :, 0])) > 3


# EXIF 2.32, tag 0x0112: where row 0 and column 0 of the stored array stand in the upright image.
ORIENTATIONS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_turns_the_image_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ORIENTATIONS[orientation](GRADIENT)
    got = read_image(encoded(Image.fromarray(GRADIENT), exif=exif), size=upright.shape)
    np.testing.assert_array_equal(got, upright)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"garbage"])
def test_a_broken_exif_does_not_cost_the_image(exif):
    file = encoded(plain("L", 90), "JPEG", exif=exif)
    np.testing.assert_array_equal(read_image(file, size=(8, 8, 1)), 90)


RED = (200, 40, 10)
GRAY = 84  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B = 84.4


def plain(mode, color):
    return Image.new(mode, (8, 8), color)


def palette():
    image = plain("P", 1)
    image.putpalette([0, 0, 0, *RED])
    return image


MODES = {
    "gray": (plain("L", 90), {}, (90, 90, 90)),
    "bilevel": (plain("1", 1), {}, (255, 255, 255)),
    "color": (plain("RGB", RED), {}, RED),
    "palette": (palette(), {}, RED),
    "palette, transparent": (palette(), {"transparency": 1}, (255, 255, 255)),
    "palette, alpha in bytes": (palette(), {"transparency": b"\xff\x80"}, (227, 147, 132)),
    "color, one color transparent": (plain("RGB", RED), {"transparency": RED}, (255, 255, 255)),
    "alpha": (plain("RGBA", (*RED, 255)), {}, RED),
    "alpha, transparent": (plain("RGBA", (*RED, 0)), {}, (255, 255, 255)),
    "gray and alpha": (plain("LA", (0, 128)), {}, (127, 127, 127)),
    "16 bits": (Image.fromarray(np.full([8, 8], 90 * 257, np.uint16)), {}, (90, 90, 90)),
}


@pytest.mark.parametrize("case", MODES)
def test_every_mode_becomes_gray_and_color(case):
    image, options, color = MODES[case]
    got = read_image(encoded(image, **options), size=(4, 4, 3))
    assert got.shape == (4, 4, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - color).max() <= 1
    got = read_image(encoded(image, **options), size=(4, 4, 1))
    assert np.abs(got - np.dot(color, [0.299, 0.587, 0.114])).max() <= 1.5


def test_cmyk_jpeg_becomes_red():
    file = encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = read_image(file, size=(4, 4, 3))[1, 1].tolist()
    assert red > 200 and green < 60 and blue < 60


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


JPEG = encoded(Image.fromarray(np.tile(GRADIENT, [20, 20, 1])), "JPEG").getvalue()
PNG = encoded(Image.fromarray(np.tile(GRADIENT, [20, 20, 1]))).getvalue()
HOSTILE = {
    "nothing": b"",
    "a web page": b"<html>404</html>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "JPEG cut off": JPEG[: len(JPEG) // 2],
    "JPEG of noise": b"\xff\xd8\xff" + bytes(range(256)) * 4,
    "PNG cut off": PNG[: len(PNG) // 2],
    "PNG with a wrong checksum": PNG[:20] + b"?" + PNG[21:],
    "PNG without pixels": png(8, 8, b""),
    "PNG bomb": png(60_000, 60_000, zlib.compress(bytes(9999))),
    "PNG bomb under Pillow's own error": png(10_000, 10_000, zlib.compress(bytes(9999))),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_files_end_with_one_line(case):
    with pytest.raises(ValueError) as caught:
        read_image(io.BytesIO(HOSTILE[case]), size=(8, 8, 3))
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 10
    if "bomb" in case:
        assert "pixels" in str(caught.value)


def test_the_bound_on_pixels(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", 23)
    with pytest.raises(ValueError, match="4 x 6 pixels are more than 23$"):
        read_image(encoded(Image.fromarray(GRADIENT)), size=(6, 4, 3))
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", 24)
    read_image(encoded(Image.fromarray(GRADIENT)), size=(6, 4, 3))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_looks_readable_by_its_first_bytes(tmp_path, form):
    Image.fromarray(GRADIENT).save(tmp_path / "right", form)
    assert has_image_header(str(tmp_path / "right"))
    (tmp_path / "wrong").write_bytes(b"?" + (tmp_path / "right").read_bytes())
    assert not has_image_header(str(tmp_path / "wrong"))
    assert not has_image_header(str(tmp_path / "missing"))


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 4), (0, 8, 3), (8, -8, 1), ()])
def test_a_wrong_size_is_told(size):
    with pytest.raises(ValueError, match=r"^folder:x: size is \(height, width, 1 or 3 channels\)"):
        check_size(size, source="folder:x")
