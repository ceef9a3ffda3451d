"""python -m zoo predict: what it prints, for images of every kind and for none."""

import json
import struct
import sys
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import pretrained
from zoo.__main__ import main
from zoo.cli import predict as command
from zoo.inference import classifier
from zoo.inference.classifier import parse_class_names, read_class_names, split_name_and_files
from zoo.media.image_io import read_image
from zoo.preprocess import Preprocessing, preprocess

RANDOM = np.random.default_rng(0)
CLASSES = ["zero", "one", "two", "three", "four", "five", "six"]
SEEN = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (20, 16), crop=0.8)
# smooth, so that JPEG changes little of it, and not the same turned or mirrored
Y, X = np.mgrid[0:60, 0:90] / 60
COLORS = np.stack([255 * Y / 1.0, 160 * X, 120 + 100 * np.sin(3 * X * Y)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, draw):
    """A small run's folder: a classifier of color images of 20 x 16."""
    folder = tmp_path_factory.mktemp("run")
    fields = dict(depths=(1, 1), num_classes=7, width=8)
    model = zoo.create_model("resnet20", **fields)
    variables = draw(model, (20, 16, 3))
    extra = {"preprocessing": SEEN, "classes": CLASSES}
    zoo.save_model("resnet20", folder / "model.safetensors", model, variables, extra=extra)
    return folder


@pytest.fixture(scope="module")
def opened(weights):
    return classifier.load_classifier(None, str(weights))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch, opened):
    """The commands below use this one, where they ask for the same."""
    whole = command.open_predictor

    def again(name, given):
        same = name in (None, opened.name) and given.weights.endswith("/again")
        return opened if same and given.classes is None else whole(name, given)

    monkeypatch.setattr(command, "open_predictor", again)


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_blocks(weights, tmp_path, capsys):
    """The probabilities are those of the model on what zoo.preprocess makes of the pixels."""
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    Image.fromarray(COLORS[::-1]).save(tmp_path / "b.bmp")
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.bmp")]
    assert main(["predict", "resnet20", *files, "--weights", str(weights), "--top", "3"]) == 0
    out, errors = lines(capsys)
    assert errors == [] and [out[0], out[4]] == files and len(out) == 8
    model, variables = zoo.load_model("resnet20", weights)
    image = preprocess(np.stack([COLORS, COLORS[::-1]]), SEEN)
    expected = jax.nn.softmax(model.apply(variables, image)["logits"])
    for row, block in zip(np.asarray(expected), (out[1:4], out[5:8]), strict=True):
        order = np.argsort(-row)[:3]
        assert [line.split()[2] for line in block] == [CLASSES[index] for index in order]
        shares = [float(line.split()[0]) for line in block]
        np.testing.assert_allclose(shares, 100 * row[order], atol=0.5)  # pixels are whole numbers


def upright(image: Image.Image, orientation: int) -> tuple[Image.Image, dict]:
    """An image turned, with the EXIF that says how to turn it back."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(turns[orientation]), {"exif": exif}


PLAIN = Image.fromarray(COLORS)
ALPHA = Image.fromarray(np.dstack([COLORS, np.full((60, 90), 255, np.uint8)]))
SIXTEEN = Image.fromarray(COLORS[..., 0].astype(np.uint16) * 257)
GRAY = Image.fromarray(COLORS[..., 0])
THREE = Image.merge("RGB", [GRAY] * 3)
TABLE = {  # a file, the image that it shows, and how far pixels may be off
    "a.png": (PLAIN, {}, PLAIN, 0),
    "a.webp": (PLAIN, {"lossless": True}, PLAIN, 0),
    "a.jpg": (PLAIN, {"quality": 98}, PLAIN, 6),
    "turned.jpg": (*upright(PLAIN, 6), PLAIN, 12),
    "half turned.png": (*upright(PLAIN, 3), PLAIN, 0),
    "alpha.png": (ALPHA, {}, PLAIN, 0),
    "gray.png": (GRAY, {}, THREE, 0),
    "gray.jpg": (GRAY, {"quality": 98}, THREE, 4),
    "sixteen.png": (SIXTEEN, {}, THREE, 1),
    "cmyk.jpg": (PLAIN.convert("CMYK"), {"quality": 98}, PLAIN, 8),
    "palette.png": (GRAY.convert("P"), {}, THREE, 0),
    "bits.png": (GRAY.convert("1"), {}, GRAY.convert("1").convert("RGB"), 0),
    "misnamed.txt": (PLAIN, {"format": "PNG"}, PLAIN, 0),
}


@pytest.mark.parametrize("file", TABLE)
def test_images_of_every_kind(file, tmp_path, opened, capsys):
    """As the plain image: pixels, the most probable class, and its probability."""
    image, options, shown, most = TABLE[file]
    image.save(tmp_path / file, **options)
    shown.save(tmp_path / "plain.png")
    ours = read_image(str(tmp_path / file), SEEN)
    plain = read_image(str(tmp_path / "plain.png"), SEEN)
    assert ours.shape == (20, 16, 3) and ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - plain).max() <= most
    assert (
        main(["predict", *(str(tmp_path / f) for f in (file, "plain.png")), "--weights", "/again"])
        == 0
    )
    out, errors = lines(capsys)
    assert errors == [] and len(out) == 12
    assert out[1].split()[2] == out[7].split()[2]
    assert float(out[1].split()[0]) == pytest.approx(float(out[7].split()[0]), abs=2)


def test_transparent_is_white_and_colors_become_gray(tmp_path):
    clear = np.zeros((40, 40, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_image(str(tmp_path / "clear.png"), SEEN) == 255).all()
    PLAIN.save(tmp_path / "a.png")
    gray = read_image(str(tmp_path / "a.png"), Preprocessing((0.5,), (0.5,), (60, 60)))
    luma = COLORS[:, 15:75] @ [0.299, 0.587, 0.114]
    assert gray.shape == (60, 60, 1) and np.abs(gray[..., 0] - luma).max() < 1


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (17, 300), (300, 17), (25, 20), (9, 9)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resized_and_cut(shape, interpolation, tmp_path):
    """As torchvision does, whose sizes these are: to the short side, then the center."""
    pixels = RANDOM.integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    seen = SEEN._replace(interpolation=interpolation)
    scale = max(25 / shape[0], 20 / shape[1])  # 20 x 16 is 0.8 of this
    large = [int(side * scale + 1e-6) for side in shape]
    method = Image.Resampling[interpolation.upper()]
    whole = np.asarray(Image.fromarray(pixels).resize(large[::-1], method))
    top, left = round((large[0] - 20) / 2), round((large[1] - 16) / 2)
    expected = whole[top : top + 20, left : left + 16].astype(int)
    ours = read_image(str(tmp_path / "a.png"), seen)
    np.testing.assert_array_equal(ours, expected)


def test_a_thread_of_an_image(tmp_path):
    """Resized it would be 25 x 25,000,000 pixels."""
    Image.new("L", (1_000_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: 1000000 x 1 pixels are too long and thin"):
        read_image(str(tmp_path / "a.png"), SEEN)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge(width: int, height: int) -> bytes:
    """A PNG of 100 bytes that claims to be of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


HOSTILE = {
    "text.jpg": (b"no image\n" * 20, "no image of a known kind: expected JPEG, PNG, WEBP, BMP"),
    "empty.png": (b"", "no image of a known kind"),
    "huge.png": (huge(60_000, 60_000), "pixels"),
    "large.png": (huge(10_000, 9_000), "10000 x 9000 pixels are more than 89,478,485"),
    "bare.png": (huge(100, 100), "bare.png: "),
}


def test_images_that_are_none(tmp_path, capsys):
    """Each file that fails is reported in one line, and the valid one is predicted."""
    for name, (content, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(content)
    PLAIN.save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    names = [*HOSTILE, "cut.jpg", "good.jpg", "absent.png"]
    files = [str(tmp_path / name) for name in names]
    assert main(["predict", "resnet20", *files, "--weights", "/again"]) == 2
    out, errors = lines(capsys)
    assert len(out) == 6 and out[0].endswith("good.jpg")
    expected = [said for _, said in HOSTILE.values()] + ["truncated", "no file"]
    assert len(errors) == len(expected)
    for line, said in zip(errors, expected, strict=True):
        assert said in line.lower() if said == "truncated" else said in line
        assert line.startswith("python -m zoo: ")


def test_folders(tmp_path, capsys):
    """Of a folder the images, by name; of one without any a line."""
    for name in ("b.PNG", "a.jpg", ".c.png", "d.txt"):
        PLAIN.save(tmp_path / name, format="PNG")
    assert main(["predict", "resnet20", str(tmp_path), "--weights", "/again", "--top", "1"]) == 0
    out, _ = lines(capsys)
    assert out[::2] == [str(tmp_path / "a.jpg"), str(tmp_path / "b.PNG")]
    (tmp_path / "empty").mkdir()
    assert main(["predict", "resnet20", str(tmp_path / "empty"), "--weights", "/again"]) == 2
    out, (line,) = lines(capsys)
    assert out == [] and "empty has no file that ends in .jpg, .jpeg, .png" in line


def test_class_names(tmp_path):
    names = ["tench, Tinca tinca", "goldfish"]
    forms = [
        names,
        {"0": names[0], "1": names[1]},
        {"1": ["n2", names[1]], "0": ["n1", names[0]]},
        {names[1]: 1, names[0]: 0},
        [{"index": 1, "wnid": "n2", "name": names[1]}, {"index": 0, "name": names[0]}],
        [{"name": names[0]}, {"name": names[1]}],
        [["n1", names[0]], ["n2", names[1]]],
    ]
    for form in forms:
        assert parse_class_names(form) == names
        (tmp_path / "a").write_text(json.dumps(form))
        assert read_class_names(tmp_path / "a") == names
    (tmp_path / "a").write_bytes("\ufefftench, Tinca tinca\r\ngoldfish\r\n\r\n".encode())
    assert read_class_names(tmp_path / "a") == names


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"[1, 2]", b'{"0": "a", "2": "b"}', b"[1", b"[" * 9999, b"\xff\xfe\xff",
     b'[{"index": 0}]', b'[{"index": 1, "name": "a"}]', b'{"a": "b"}', b"[[]]"],
)  # fmt: skip
def test_files_without_class_names(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="expected class names in|is empty: exp") as caught:
        read_class_names(tmp_path / "a")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def saved(folder, draw, name="lenet5_modern", **fields):
    model = zoo.create_model(name, **fields)
    shape = zoo.registry.variant_card(name)[0]["input"]
    zoo.save_model(name, folder / "model.safetensors", model, draw(model, shape))
    return str(folder)


def test_whose_names(tmp_path, draw, weights, monkeypatch):
    """The option's, the card's, the publisher's, the list of ImageNet, or numbers and a note."""
    own = tmp_path / "own.txt"
    own.write_text("\n".join("abcdefg"))
    assert classifier.load_classifier(None, str(weights)).classes == CLASSES
    assert classifier.load_classifier(None, str(weights), classes=str(own)).classes == list(
        "abcdefg"
    )
    ten = saved(tmp_path, draw)
    silent = classifier.load_classifier("lenet5_modern", ten)
    assert silent.classes[9] == "class 9" and "does not name its 10 classes; pass" in silent.note
    with pytest.raises(
        ValueError, match=r"expected 10 class names for lenet5_modern, got 7 in .*own.txt"
    ):
        classifier.load_classifier(None, ten, classes=str(own))
    fitted = classifier.open_model(None, ten)
    names, note = classifier.resolve_class_names(
        fitted, pretrained.published_sources("resnet20")[0], None
    )
    assert names[3] == "cat" and note == ""

    thousand = saved(tmp_path, draw, num_classes=1000)
    (tmp_path / "list").write_text("\n".join(f"name {n}" for n in range(1000)))
    monkeypatch.setattr(classifier, "fetch", lambda url, limit: tmp_path / "list")
    assert classifier.load_classifier(None, thousand).classes[999] == "name 999"

    def offline(url, limit):
        raise FileNotFoundError(f"{url} cannot be fetched; put it at CACHE")

    monkeypatch.setattr(classifier, "fetch", offline)
    alone = classifier.load_classifier(None, thousand)
    assert alone.classes[999] == "class 999"
    assert "put it at CACHE; or pass --classes FILE" in alone.note


def test_mistakes(tmp_path, draw, weights, capsys, monkeypatch):
    PLAIN.save(tmp_path / "a.png")
    image, own = str(tmp_path / "a.png"), str(weights)
    (tmp_path / "auto").mkdir()
    (tmp_path / "less").mkdir()
    coder = saved(tmp_path / "auto", draw, "autoencoder")
    headless = saved(tmp_path / "less", draw, num_classes=0)
    cases = [
        (["resnt20", image, "--weights", own], "unknown model 'resnt20': did you mean resnet20"),
        (["resnet20", "--weights", own], "expected images: python -m zoo predict resnet20 IMAGE"),
        (["lenet5", image, "--weights", own], "expected weights of lenet5, got resnet20"),
        ([image, "--weights", coder], "is not a classifier: its task is reconstruction"),
        ([image, "--weights", headless], "is not a classifier: its weights have no head"),
        (
            [image, "--weights", str(tmp_path / "none")],
            "expected a weight file or the folder of a finished run",
        ),
        ([image, "--weights", own, "--top", "0"], "expected --top of at least 1, got 0"),
        ([image, "--weights", own, "--classes", "absent"], "no file absent: expected names"),
    ]
    for arguments, message in cases:
        assert main(["predict", *arguments]) == 2
        out, errors = lines(capsys)
        assert out == [] and len(errors) == 1 and message in errors[0]
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["predict", image, "--weights", own]) == 2
    assert "pip install 'flax-zoo[predict]'" in capsys.readouterr().err


def test_the_name_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_name_and_files(["absent.png", "b"]) == (None, ["absent.png", "b"])
    (tmp_path / "photo").touch()
    assert split_name_and_files(["photo"]) == (None, ["photo"])
    (tmp_path / "lenet5").touch()
    assert split_name_and_files(["lenet5", "photo"]) == ("lenet5", ["photo"])
