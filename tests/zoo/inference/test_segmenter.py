"""python -m zoo predict for models that segment: the files, what it prints, and its mistakes."""

import types
from typing import final

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import registry
from zoo.__main__ import main
from zoo.inference import segmenter
from zoo.inference.classifier import resolve_class_names
from zoo.media import colormap, image_io
from zoo.pretrained import VOC_CLASSES
from zoo.weights.model_file import open_model

RANDOM = np.random.default_rng(0)
NAMES = ["sky", "road", "car"]
MEANS = np.array([[60, 120, 220], [90, 90, 90], [200, 60, 40]])  # a class is a color


@final
class Tiny(nn.Module):
    """The nearest of the colors, of the mean of 3 x 3 pixels: [B, H, W, 3] -> [B, H, W, 3]."""

    num_classes: int = 3
    padding: str = "SAME"

    @nn.compact
    def __call__(self, image, *, train=False):
        stage = nn.Conv(3, (3, 3), padding=self.padding, name="mean")(image)
        if stage.shape[1] % 2:
            raise ValueError(f"Tiny takes images of even height, got {image.shape}")
        return {"stage1": stage, "logits": nn.Conv(self.num_classes, (1, 1), name="score")(stage)}


CARD = dict(
    module=Tiny,
    task="segmentation",
    input=(16, 24, 3),
    paper="none",
    preprocessing=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)
ROWS = {"tiny": {}, "tiny_valid": dict(padding="VALID")}


@pytest.fixture(autouse=True)
def family(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "tiny", types.SimpleNamespace(CARD=CARD, VARIANTS=ROWS))


def saved(path, *, name="tiny", **extra):
    """A file of weights that finds the colors, written with a card."""
    mean = np.zeros((3, 3, 3, 3), np.float32)
    mean[:, :, range(3), range(3)] = 1 / 9
    bias = -40 * ((MEANS / 255) ** 2).sum(1).astype(np.float32)
    score = (80 * MEANS.T[None, None] / 255).astype(np.float32)
    layers = {"mean": (mean, np.zeros(3, np.float32)), "score": (score, bias)}
    params = {key: dict(kernel=kernel, bias=b) for key, (kernel, b) in layers.items()}
    zoo.save_model(name, path, zoo.create_model(name), {"params": params}, extra=extra)
    return str(path)


def street(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of the three colors and a little grain, and the classes of its pixels."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    mask[height // 3 : 2 * height // 3, width // 4 : width // 2] = 2
    image = MEANS[mask] + RANDOM.integers(-15, 16, (height, width, 3))
    return image.astype(np.uint8), mask


def clear(mask: np.ndarray) -> np.ndarray:
    """Where 3 x 3 pixels are of one class, the image's borders left out: zeros lie beyond them."""
    inside = np.zeros(mask.shape, bool)
    inside[1:-1, 1:-1] = True
    return inside & ~image_io.mask_borders(mask)


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


OPTIONS = {
    "windows": ("tiny", []),
    "flips": ("tiny", ["--flips", "--tile", "20"]),
    "tiles": ("tiny_valid", ["--tile", "14"]),
    "resized": ("tiny", ["--size", "40"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_files_and_table(name, tmp_path, capsys):
    """The mask's values are the classes, pixel by pixel; shares are its counts."""
    model, options = OPTIONS[name]
    weights = saved(tmp_path / "w.safetensors", name=model, classes=NAMES)
    image, truth = street(53, 71)
    Image.fromarray(image).save(tmp_path / "a.png")
    out = tmp_path / "made" / "here"
    arguments = ["predict", str(tmp_path / "a.png"), "--weights", weights, "--output", str(out)]
    assert main([*arguments, *options]) == 0
    printed, errors = lines(capsys)
    assert errors == [] and printed[0] == str(tmp_path / "a.png")
    assert printed[1] == f"  {out / 'a_mask.png'}, {out / 'a_overlay.jpg'}"
    assert sorted(path.name for path in out.iterdir()) == ["a_mask.png", "a_overlay.jpg"]
    with Image.open(out / "a_mask.png") as written:
        assert written.mode == "P"
        mask, colors = np.asarray(written), np.reshape(written.getpalette(), (-1, 3))
    np.testing.assert_array_equal(colors, colormap.voc_colormap(256))
    assert mask.shape == truth.shape
    far = clear(truth) if name != "resized" else clear(truth) & clear(clear(truth))
    assert far.mean() > 0.5
    np.testing.assert_array_equal(mask[far], truth[far])
    counts = np.bincount(mask.ravel(), minlength=3)
    order = np.argsort(-counts)
    assert [line.split()[2] for line in printed[2:]] == [NAMES[number] for number in order]
    shares = [float(line.split()[0]) for line in printed[2:]]
    np.testing.assert_allclose(shares, 100 * counts[order] / mask.size, atol=0.005001)


def test_one_compilation_for_images_of_every_size(tmp_path):
    weights = saved(tmp_path / "w.safetensors", classes=NAMES)
    model = segmenter.create_segmenter(open_model(None, weights), weights)
    for height, width in ((53, 71), (16, 24), (5, 90), (1, 1)):
        image, truth = street(height, width)
        mask = segmenter.segment(model, image, finish=segmenter.argmax_classes)
        assert mask.shape == (height, width, 1) and mask.dtype == np.uint8
        inner = clear(truth)
        np.testing.assert_array_equal(mask[..., 0][inner], truth[inner])
    assert model.predict.func._cache_size() == 1


def test_overlay():
    """Black classes leave the image, others mix with it; borders have the color of the class."""
    image, mask = street(40, 60)
    colors = colormap.voc_colormap(256)
    drawn = image_io.draw_overlay(
        image, mask, colors, [(0, 0.5, "sky"), (1, 0.3, "road " * 30), (2, 0.2, "car")]
    )
    factor = 6  # 384 / 60
    assert drawn.size[0] >= 60 * factor and drawn.size[1] > 40 * factor + 20
    left = (drawn.size[0] - 60 * factor) // 2
    seen = np.asarray(drawn)[: 40 * factor, left : left + 60 * factor].astype(int)
    large = mask.repeat(factor, 0).repeat(factor, 1)
    plain = image.repeat(factor, 0).repeat(factor, 1)
    edge = image_io.mask_borders(large)
    np.testing.assert_array_equal(seen[large == 0], plain[large == 0])
    np.testing.assert_array_equal(seen[edge & (large > 0)], colors[large[edge & (large > 0)]])
    inner = ~edge & (large > 0)
    share = image_io.OVERLAY_ALPHA / 255
    mixed = share * colors[large[inner]] + (1 - share) * plain[inner]
    assert np.abs(seen[inner] - mixed).max() <= 1
    legend = np.asarray(drawn)[40 * factor :]
    swatches = {tuple(color) for color in legend.reshape(-1, 3)}
    assert {tuple(colors[1]), tuple(colors[2])} <= swatches and (legend < 90).any()


def test_a_legend_of_many_classes_has_an_end():
    image = np.zeros((90, 90, 1), np.uint8)
    mask = (np.arange(8100) % 200).reshape(90, 90).astype(np.uint8)
    entries = [(number, 0.005, f"class {number}") for number in range(200)]
    drawn = image_io.draw_overlay(image, mask, colormap.voc_colormap(256), entries)
    assert drawn.size[1] < 1200


def test_a_mask_is_enlarged_by_its_probabilities():
    """Not by its pixels: a slanted border stays slanted. Against the bilinear formula."""
    y, x = np.mgrid[:8, :8]
    slope = (x - y) / 8.0
    both = np.stack([slope, -slope, np.full_like(slope, -9.0)], -1).astype(np.float32)
    mask = image_io.resize_probabilities(both, (32, 32))
    inner = (np.arange(32) + 0.5) / 4 - 0.5
    exact = inner[None] - inner[:, None]
    part = slice(4, 28)
    np.testing.assert_array_equal(
        mask[part, part][np.abs(exact[part, part]) > 0.01],
        (exact[part, part] < 0)[np.abs(exact[part, part]) > 0.01],
    )


def test_whose_names_and_colors(tmp_path, capsys):
    """The option's, the card's, Pascal VOC's for published weights of 21, or numbers and a note."""
    silent = saved(tmp_path / "silent.safetensors")
    own = tmp_path / "own.txt"
    own.write_text("a\nb\nc\n")
    loaded = open_model(None, silent)
    loaded_segmenter = segmenter.create_segmenter(loaded, silent)
    assert (
        loaded_segmenter.classes[2] == "class 2"
        and "does not name its 3 classes; pass" in loaded_segmenter.note
    )
    assert segmenter.create_segmenter(loaded, silent, classes=str(own)).classes == ["a", "b", "c"]
    published = loaded._replace(model=Tiny(num_classes=21))
    assert resolve_class_names(published, "https://example.org/fcn.pth", None) == (
        list(VOC_CLASSES),
        "",
    )
    assert resolve_class_names(published, "own.safetensors", None)[0][3] == "class 3"

    red = [[255, 0, 0], [0, 0, 0], [1, 2, 3]]
    colored = saved(tmp_path / "red.safetensors", palette=red, classes=NAMES)
    colors = segmenter.create_segmenter(open_model(None, colored), colored).palette
    assert (
        colors[:3].tolist() == red
        and colors[3:].tolist() == colormap.voc_colormap(256)[3:].tolist()
    )
    for wrong in ([[0, 0, 0]], [[0, 0, 300]] * 3, [[0, 0], [1]], "red", [[0.5, 0, 0]] * 3):
        with pytest.raises(ValueError, match="invalid palette in the card of .*: expected 3 rows"):
            segmenter.card_palette(wrong, 3, source="w")


def test_mistakes(tmp_path, capsys):
    weights = saved(tmp_path / "w.safetensors", name="tiny_valid", classes=NAMES)
    model = zoo.create_model("lenet5_modern")
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 1)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    zoo.save_model("lenet5_modern", tmp_path / "lenet", model, zeros)
    Image.fromarray(street(20, 20)[0]).save(tmp_path / "a.png")
    (tmp_path / "file").touch()
    image = str(tmp_path / "a.png")
    segmenting, classifying = ["--weights", weights], ["--weights", str(tmp_path / "lenet")]
    cases = [
        (
            [*segmenting, "--top", "3"],
            "--top is for classification: tiny_valid is for segmentation",
        ),
        ([*classifying, "--flips"], "--flips is for segmentation: lenet5_modern is for classific"),
        ([*segmenting, "--tile", "0"], "expected --tile to be at least 1 pixel, got 0"),
        ([*segmenting, "--size", "-4"], "expected --size to be at least 1 pixel, got -4"),
        ([*segmenting, "--tile", "2"], "expected larger tiles than (2, 2)"),
        ([*segmenting, "--tile", "15"], "takes images of even height, got (1, 15, 15, 3)"),
        ([*segmenting, "--classes", "none"], "no file none: expected names"),
        ([*segmenting, "--output", str(tmp_path / "file")], "file"),
    ]
    for options, said in cases:
        assert main(["predict", image, *options]) == 2
        out, errors = lines(capsys)
        assert out == [] and len(errors) == 1 and said in errors[0], errors


def test_hostile_images_and_equal_names(tmp_path, capsys):
    """Each bad file is reported in one line; valid ones have outputs that do not collide."""
    weights = saved(tmp_path / "w.safetensors", classes=NAMES)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(street(30, 20)[0]).save(tmp_path / folder / "a.png")
    (tmp_path / "text.jpg").write_bytes(b"no image\n" * 20)
    Image.new("L", (400_000, 1)).save(tmp_path / "thread.png")
    names = ("one/a.png", "text.jpg", "two/a.png", "thread.png", "absent.png")
    files = [str(tmp_path / name) for name in names]
    out = tmp_path / "out"
    arguments = ["predict", *files, "--weights", weights, "--output", str(out), "--size", "60"]
    assert main(arguments) == 2
    printed, errors = lines(capsys)
    assert [line for line in printed if not line.startswith(" ")] == [files[0], files[2]]
    assert len(errors) == 3
    for line, said in zip(errors, ("known kind", "too long and thin", "no file"), strict=True):
        assert said in line and line.startswith("python -m zoo: ")
    made = ["a_2_mask.png", "a_2_overlay.jpg", "a_mask.png", "a_overlay.jpg"]
    assert sorted(path.name for path in out.iterdir()) == made
