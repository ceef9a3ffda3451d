"""Images with masks: every mode of a mask, every layout, and one line for each mismatch."""

import pickle
import struct
import typing
import zlib

import numpy as np
import pytest
from PIL import Image

from train.data import (
    eval_batches,
    evaluation_split,
    open_masks,
    split_source,
    train_batches,
    with_pixel_weights,
)
from train.data.segmentation.mask_files import ImageMask, fit_pair, infer_encoding, read_mask
from train.data.segmentation.mask_folder import pair_by_stem
from train.data.segmentation.masked_images import Cached, cache_in_memory
from train.data.source import Arrays
from zoo.media.colormap import voc_colormap

INDICES = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)


def write(file, array, mode=None, **how):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, **how)
    return file


def palette_png(file, array, colors, **how):
    image = Image.fromarray(array, "L")
    image.putpalette(np.asarray(colors, np.uint8).tobytes())
    assert image.mode == "P"
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **how)
    return file


def few_bits(file, array, bits):
    """A gray PNG of 1, 2 or 4 bits, as Pillow cannot write one."""
    rows = b""
    for row in array:
        filled = np.pad(row, (0, -len(row) % (8 // bits)))
        packed = filled.reshape(-1, 8 // bits) @ (1 << np.arange(8 - bits, -1, -bits))
        rows += b"\0" + packed.astype(np.uint8).tobytes()

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return file


BINARY = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
WORN = voc_colormap(256)[::-1]  # colors that say another thing than the indices
MODES = {
    "L": (lambda f: write(f, INDICES), {}, INDICES),
    "P": (lambda f: palette_png(f, INDICES, WORN), {}, INDICES),
    "P of two bits": (lambda f: palette_png(f, BINARY, WORN, bits=2), {}, BINARY),
    "I;16": (lambda f: write(f, INDICES.astype(np.uint16)), {}, INDICES),
    "LA": (lambda f: write(f, INDICES, "LA"), {}, INDICES),
    "1": (lambda f: write(f, BINARY.astype(bool)), {}, BINARY),
    "1, white is 255": (lambda f: write(f, BINARY.astype(bool)), {"values": (0, 255)}, BINARY),
    "1, white is 1": (lambda f: write(f, BINARY.astype(bool)), {"values": (1, 0)}, 1 - BINARY),
    "gray of 2 bits": (lambda f: few_bits(f, INDICES.clip(0, 2), 2), {}, INDICES.clip(0, 2)),
    "gray of 4 bits": (lambda f: few_bits(f, INDICES.clip(0, 2), 4), {}, INDICES.clip(0, 2)),
    "2 bits, as shown": (
        lambda f: few_bits(f, INDICES.clip(0, 2), 2),
        {"values": (85, 170, 0)},
        np.array([[2, 0, 1], [1, 0, 1]], np.uint8),
    ),
    "values": (
        lambda f: write(f, np.array([[9, 255], [70, 3]], np.uint8)),
        {"values": (255, 9, 70), "ignore": 3},
        np.array([[1, 0], [2, 255]], np.uint8),
    ),
    "values of 16 bits": (
        lambda f: write(f, np.array([[1000, 65535], [7, 7]], np.uint16)),
        {"values": (7, 1000, 65535)},
        np.array([[1, 2], [0, 0]], np.uint8),
    ),
    "colors": (
        lambda f: write(f, np.array([[[1, 2, 3], [9, 0, 0]], [[0, 0, 9], [5, 5, 5]]], np.uint8)),
        {"values": [[9, 0, 0], [0, 0, 9], [1, 2, 3]], "ignore": (5, 5, 5)},
        np.array([[2, 0], [1, 255]], np.uint8),
    ),
    "colors of a palette": (
        lambda f: palette_png(f, np.clip(INDICES, 0, 2), [[7, 7, 7], [8, 8, 8], [9, 9, 9]]),
        {"values": ((9, 9, 9), (8, 8, 8), (7, 7, 7))},
        2 - np.clip(INDICES, 0, 2),
    ),
}


@pytest.mark.parametrize("case", MODES)
def test_a_mask_is_read_as_indices_whatever_its_mode(tmp_path, case):
    writes, says, expected = MODES[case]
    file = writes(tmp_path / "mask.png")
    classes = len(says.get("values", range(3)))
    mask = read_mask(file, encoding=infer_encoding(classes, **says), name="mask")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def scene(value, height=4, width=6):
    """A mask and an image that shows it: gray 40 times the index."""
    mask = np.full((height, width), value, np.uint8)
    mask[0, 0] = 1
    return mask, (40 * mask).astype(np.uint8)


def add(images, masks, name, value=2, *, suffix="", **shape):
    mask, image = scene(value, **shape)
    write(images / f"{name}.png", image)
    write(masks / f"{name}{suffix}.png", mask)


LAYOUTS = {
    "beside": ("{part}", "{part}annot", ""),
    "kinds": ("images/{part}", "masks/{part}", ""),
    "parts": ("{part}/images", "{part}/masks", ""),
    "image and label": ("image/{part}", "label/{part}", "_mask"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    images, masks, suffix = LAYOUTS[layout]
    for n, part in enumerate(("train", "val"), start=2):
        for i in range(n):
            folders = tmp_path / images.format(part=part), tmp_path / masks.format(part=part)
            add(*folders, i, i % 3, suffix=suffix)
    sources = open_masks(f"folder:{tmp_path}")
    assert {part: len(source) for part, source in sources.items()} == {"train": 2, "val": 3}
    val = sources["val"]
    assert val.classes == ("0", "1", "2") and val.palette.tolist() == voc_colormap(3).tolist()
    for i in range(3):
        assert val[i]["image"].shape == (4, 6, 1) and val[i]["mask"][-1, -1] == i % 3
        np.testing.assert_array_equal(val[i]["image"][..., 0], 40 * val[i]["mask"])


def test_numbers_are_in_order_and_blocks_cut_them(tmp_path):
    for i in range(12):
        mask, _ = scene(2)
        write(tmp_path / "label" / f"{i}.png", mask)
        write(tmp_path / "image" / f"{i}.png", np.full_like(mask, i))

    def numbers(**says):
        sources = open_masks(f"folder:{tmp_path}", **says)
        return {k: [int(s[i]["image"][0, 0, 0]) for i in range(len(s))] for k, s in sources.items()}

    assert numbers(splits="0-6, 11 / 9-10") == {"train": [*range(7), 11], "val": [9, 10]}
    assert numbers(splits="2-3/0/1") == {"train": [2, 3], "val": [0], "test": [1]}
    drawn, again, other = (numbers(splits=0.25, seed=seed) for seed in (0, 0, 1))
    assert drawn == again != other and len(drawn["val"]) == 3
    assert sorted(drawn["train"] + drawn["val"]) == list(range(12))
    assert len(numbers()["val"]) == 2
    for wrong, says in {
        "0-6 / 6-9": "share nothing",
        "0-6": "two or three blocks",
        "0-6 / 7-12": "not within 0-11",
        "6-0 / 7": "not within",
        "a-b / 3": "blocks such as",
    }.items():
        with pytest.raises(ValueError, match=says) as caught:
            numbers(splits=wrong)
        assert "\n" not in str(caught.value)


def test_a_part_that_is_there_is_not_cut_again(tmp_path):
    for part in ("train", "val"):
        for name in "ab":
            add(tmp_path / part, tmp_path / f"{part}annot", name)
    with pytest.raises(ValueError, match="has a part val of its own: leave splits=0/1 out$"):
        open_masks(f"folder:{tmp_path}", splits="0/1")
    (tmp_path / "train").rename(tmp_path / "unused")
    with pytest.raises(ValueError, match="has val but nothing to train on$"):
        open_masks(f"folder:{tmp_path}")


def broken(case, train, annot):
    """Makes `case` of a good pair; gives the file that the line must name."""
    image, mask = train / "b.png", annot / "b.png"
    match case:
        case "missing mask":
            mask.unlink()
            return image
        case "JPEG mask":
            mask.rename(mask.with_suffix(".jpg"))
            return image
        case "missing image":
            image.unlink()
            return mask
        case "other size":
            write(mask, np.ones((6, 5), np.uint8))
        case "unknown index":
            write(mask, np.full((4, 6), 7, np.uint8))
        case "unknown value, 16 bits":
            write(mask, np.full((4, 6), 300, np.uint16))
        case "RGB mask":
            write(mask, np.ones((4, 6, 3), np.uint8))
        case "all ignored":
            write(mask, np.full((4, 6), 255, np.uint8))
        case "no bytes":
            mask.write_bytes(b"")
        case "cut-off mask":
            write(mask, np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8))
            write(image, np.zeros((64, 64), np.uint8))
            mask.write_bytes(mask.read_bytes()[:-300])
        case "cut-off image":
            image.write_bytes(image.read_bytes()[:-30])
            return image
        case "text":
            image.write_text("<html>404</html>")
            return image
        case "a bomb":
            few = bytearray(mask.read_bytes())
            few[16:24] = (100_000).to_bytes(4, "big") * 2
            mask.write_bytes(bytes(few))
        case "same name":
            write(train / "b.bmp", np.zeros((4, 6), np.uint8))
            return train / "b.png"
    return mask


MISMATCHES = {
    "missing mask": "has no mask of its name",
    "JPEG mask": r"has no mask of its name .*JPEG does not keep",
    "missing image": "is a mask without an image of its name",
    "other size": "the mask has 5 x 6 pixels, its image .*b.png 6 x 4",
    "unknown index": "value 7 at row 0, column 0 is that of none of the 3 classes",
    "unknown value, 16 bits": "value 300 at row 0",
    "RGB mask": r"mask of mode RGB, expected class indices .* values=\(\(red",
    "all ignored": "empty mask",
    "no bytes": "unreadable as a mask",
    "cut-off mask": "unreadable as a mask",
    "cut-off image": "unreadable as an image",
    "text": "unreadable as an image",
    "a bomb": "unreadable as a mask",
    "same name": "have the same name",
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_mismatch_is_one_line_that_names_the_file(tmp_path, case):
    for name in "ab":
        add(tmp_path / "train", tmp_path / "trainannot", name)
    file = broken(case, tmp_path / "train", tmp_path / "trainannot")
    with pytest.raises(ValueError, match=MISMATCHES[case]) as caught:
        says = dict(size=(4, 6, 1), classes="abc", splits="0/1")
        source = open_masks(f"folder:{tmp_path}", **says)["val"]
        list(eval_batches(source, batch_size=1))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_of_background_alone_is_told_in_the_log(tmp_path, caplog):
    for name in "ab":
        add(tmp_path / "train", tmp_path / "trainannot", name)
    write(tmp_path / "trainannot" / "b.png", np.zeros((4, 6), np.uint8))
    source = open_masks(f"folder:{tmp_path}", splits="0/1")["val"]
    assert source[0]["mask"].max() == source[0]["mask"].max() == 0
    told = [line for line in caplog.messages if "empty mask" in line]
    assert len(told) == 1 and str(tmp_path / "trainannot" / "b.png") in told[0]


HOSTILE = {
    "nothing": (FileNotFoundError, "^folder: there is no folder"),
    "bare": (ValueError, "has no images beside masks: expected PATH/train"),
    "black and white": (ValueError, r"highest index in its masks is 0, .*\(0, 255\)"),
    "gray": (ValueError, "highest index in its masks is 254 in .*a.png, expected 1 to 253"),
    "hollow": (ValueError, "has no images"),
    "sizes": (ValueError, r"say size=\(height, width, channels\)$"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_end_with_one_line(tmp_path, case):
    folders = tmp_path / "image", tmp_path / "label"
    match case:
        case "bare":
            write(tmp_path / "a.png", scene(0)[0])
        case "black and white" | "gray":
            write(folders[0] / "a.png", scene(0)[0])
            top = 255 if case == "black and white" else 254
            write(folders[1] / "a.png", np.full((4, 6), top, np.uint8))
        case "hollow":
            [folder.mkdir() for folder in folders]
        case "sizes":
            add(*folders, "a")
            add(*folders, "b", height=5)
    error, says = HOSTILE[case]
    with pytest.raises(error, match=says) as caught:
        open_masks(f"folder:{tmp_path / 'none' if case == 'nothing' else tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec, keywords, says",
    [
        ("digit_scene", {}, "^unknown source of masks digit_scene: did you mean digit_scenes[?]$"),
        ("ade", {}, "choose one of digit_scenes, folder:PATH"),
        ("voc", {}, "^source voc: expected the form voc:PATH$"),
        ("digit_scenes", {"classes": "ab"}, "knows its classes itself: leave classes out$"),
        ("digit_scenes", {"size": (32, 32, 1)}, "at least 64 x 64"),
        ("folder:{}", {"classes": "ab", "values": (0, 1, 2)}, "one value for each of 2 classes"),
        ("folder:{}", {"values": (0, 1), "ignore": 1}, "ignore=1 is the value of class 1 too$"),
        ("folder:{}", {"values": (0, (1, 2, 3))}, "all numbers or all colors"),
        ("folder:{}", {"values": ((0, 0), (1, 2))}, "a color is three numbers"),
        ("folder:{}", {"values": (-1, 2)}, "0 or more; got -1"),
        ("folder:{}", {"instances": True}, "has no instances: leave them out$"),
        ("folder:{}", {"values": (1,)}, "masks have 2 to 254 classes; got 1$"),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path, spec, keywords, says):
    add(tmp_path / "image", tmp_path / "label", "a")
    with pytest.raises(ValueError, match=says) as caught:
        open_masks(spec.format(tmp_path), **keywords)
    assert "\n" not in str(caught.value)


def test_fitting_keeps_proportions_and_pads_with_what_is_ignored():
    mask = np.arange(8, dtype=np.uint8).reshape(2, 4)
    image = Image.fromarray(np.repeat(mask[..., None] * 30, 3, axis=-1))
    given = fit_pair(ImageMask(image, mask, mask.astype(np.int32)), (6, 8, 3))
    assert {key: value.shape for key, value in given.items()} == {
        "image": (6, 8, 3),
        "mask": (6, 8),
        "instances": (6, 8),
    }
    np.testing.assert_array_equal(given["mask"][:4], mask.repeat(2, 0).repeat(2, 1))
    assert (given["mask"][4:] == 255).all() and not given["image"][4:].any()
    np.testing.assert_array_equal(given["instances"][:4], given["mask"][:4])
    assert not given["instances"][4:].any()

    smaller = fit_pair(ImageMask(image, mask), (1, 4, 3))[
        "mask"
    ]  # the middles of the old pixels' pairs
    expected = np.asarray(Image.fromarray(mask).resize((2, 1), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(smaller, [[*expected[0], 255, 255]])

    same = fit_pair(ImageMask(image, mask), (2, 4, 3))
    np.testing.assert_array_equal(same["mask"], mask)
    np.testing.assert_array_equal(same["image"], np.asarray(image))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("upright", [True, False])
def test_an_image_is_turned_as_its_mask_is(tmp_path, orientation, upright):
    stored = np.zeros((8, 16), np.uint8)
    stored[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "image").mkdir()
    Image.fromarray(stored).save(tmp_path / "image" / "a.jpg", exif=exif, quality=95)
    turned = {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}[orientation]
    # Of a half turn the mask's size says nothing, and what people see is upright.
    expected = turned if upright or orientation == 3 else stored
    write(tmp_path / "label" / "a.png", (expected > 100).astype(np.uint8))
    write(tmp_path / "image" / "b.jpg", np.zeros((8, 16), np.uint8))
    write(tmp_path / "label" / "b.png", np.ones((8, 16), np.uint8))
    source = open_masks(f"folder:{tmp_path}", size=(16, 16, 1), splits="0/1")["train"]
    example = source[0]
    known = example["mask"] != 255
    assert known.sum() == 128
    np.testing.assert_array_equal((example["image"][..., 0] > 100)[known], example["mask"][known])


@pytest.fixture
def cells(tmp_path):
    for i in range(10):
        add(tmp_path / "image", tmp_path / "label", i, i % 3)
    return open_masks(f"folder:{tmp_path}", splits="0-6/7-9")


def test_batches_carry_masks_and_weights_and_resume(cells):
    source = with_pixel_weights(cells["train"], lambda example: 1 + 2.0 * (example["mask"] == 1))
    run = list(train_batches(source, batch_size=2, seed=3, start=0, stop=5))
    for batch in run:
        assert batch["mask"].shape == (2, 4, 6) and batch["mask"].dtype == np.uint8
        assert batch["weight"].dtype == np.float32
        np.testing.assert_array_equal(batch["weight"], np.where(batch["mask"] == 1, 3, 1))
    for again, batch in zip(
        train_batches(source, batch_size=2, seed=3, start=3, stop=5), run[3:], strict=True
    ):
        assert again.keys() == batch.keys()
        assert all(np.array_equal(again[key], batch[key]) for key in batch)
    (last,) = list(eval_batches(evaluation_split(cells)["val"], batch_size=4))
    assert last["valid"].tolist() == [True, True, True, False]
    assert last["mask"].shape == (4, 4, 6)


def test_weights_of_a_wrong_shape_or_value_are_told(cells):
    for wrong, says in {
        "shape": (lambda example: np.ones(3), r"shape \(3,\), its mask \(4, 6\)$"),
        "sign": (lambda example: -np.ones((4, 6)), "negative or not finite$"),
        "nan": (lambda example: np.full((4, 6), np.nan), "negative or not finite$"),
    }.values():
        with pytest.raises(ValueError, match=says):
            with_pixel_weights(cells["train"], wrong)


class Counting(Arrays):
    reads: typing.ClassVar = []

    def __getitem__(self, i, /):
        self.reads.append(i)
        return super().__getitem__(i)


def test_what_fits_is_decoded_once():
    ten = Counting(np.zeros([10, 2, 2, 1], np.uint8), np.zeros(10, np.int32), "ten", ("a", "b"))
    source = cache_in_memory({"train": ten}, limit=6 * 8)["train"]
    assert source.limit == 6
    Counting.reads.clear()
    for i in [*range(10)] * 2:
        assert source[i]["image"].shape == (2, 2, 1)
    assert sorted(Counting.reads) == sorted([*range(10), *range(6, 10)])
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 1
    source[0].clear()  # a reader's own dict
    assert source[0]


def test_sources_pickle_without_what_they_keep(cells):
    source = cells["train"]
    whole = [source[i] for i in range(len(source))]
    again = pickle.loads(pickle.dumps(source))
    assert isinstance(again, Cached) and not again.cache and again.classes == source.classes
    assert all(np.array_equal(again[i]["mask"], whole[i]["mask"]) for i in range(len(source)))


def test_a_source_without_labels_is_split_at_random(cells):
    rest, out = split_source(cells["train"], 0.3, seed=0)
    assert (len(rest), len(out)) == (5, 2) and rest.palette.shape == (3, 3)
    assert sorted([*rest.indices, *out.indices]) == list(range(7))


def test_pairs_are_found_in_natural_order(tmp_path):
    for name in ("img10", "img9", "img1"):
        add(tmp_path / "image", tmp_path / "label", name, suffix="_label")
    (tmp_path / "image" / ".hidden.png").touch()
    (tmp_path / "image" / "notes.txt").touch()
    names = [
        (i.rsplit("/")[-1], m.rsplit("/")[-1])
        for i, m, _ in pair_by_stem(*map(tmp_path.joinpath, ("image", "label")))
    ]
    assert names == [(f"img{n}.png", f"img{n}_label.png") for n in (1, 9, 10)]
