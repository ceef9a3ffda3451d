"""R-CNN by its stages, two steps of Fast R-CNN, on pictures of colored blocks."""

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.train.recipes.test_photographs import two_steps
from train import loop, parallel
from train.augment import scene
from train.augment.boxes import with_proposals
from train.data.detection.selective_search import SearchParameters, selective_search
from train.recipes import RECIPES, fast_rcnn_bccd, rcnn_bccd
from zoo.canvas import Canvas

TRIED = ("rcnn_bccd", "fast_rcnn_bccd")
COLORS = {"red": (220, 30, 30), "blue": (30, 40, 220)}
OBJECT = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""
KNOBS = dict(width=4, batch_size=8, epochs=1)


def write_blocks(folder, number):
    """A picture of 64 x 48 with a red and a blue block, and its annotation."""
    generator = np.random.default_rng(number)
    pixels = np.full((48, 64, 3), 200) + generator.integers(0, 9, (48, 64, 3))
    objects = []
    for k, (name, color) in enumerate(COLORS.items()):
        x, y = 4 + 32 * k + generator.integers(0, 8), generator.integers(4, 24)
        pixels[y : y + 16, x : x + 18] = color
        objects.append(OBJECT.format(name, x + 1, y + 1, x + 18, y + 16))
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "JPEGImages" / f"{number}.png")
    text = f"<annotation>{''.join(objects)}</annotation>"
    (folder / "Annotations" / f"{number}.xml").write_text(text)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        write_blocks(folder, number)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("3\n4\n")
    return f"folder:{folder}"


@pytest.fixture(autouse=True)
def small(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FLAX_ZOO_CACHE", str(tmp_path_factory.getbasetemp() / "proposals"))
    changes = dict(
        CANVAS=Canvas((48, 64)), DEPTHS=(1,), EPOCH_REGIONS=2, EVAL_REGIONS=8, FEATURE_BATCH=16
    )
    for name, value in changes.items():
        monkeypatch.setattr(rcnn_bccd, name, value)
    for name in ("CANVAS", "DEPTHS"):
        monkeypatch.setattr(fast_rcnn_bccd, name, changes[name])


def rcnn(blocks, workdir):
    layout = parallel.create_layout("jit", devices=jax.devices()[:1])
    rcnn_bccd.script(workdir=workdir, layout=layout, source=blocks, image_size=32, **KNOBS)


def figures(workdir):
    lines = (workdir / "results.csv").read_text().splitlines()[1:]
    return {name: float(value) for name, value in (line.split(",") for line in lines)}


def test_rcnn_by_stages(blocks, tmp_path, monkeypatch):
    calls = []

    def counted(name, function):
        def call(*arguments, **keywords):
            calls.append(name)
            return function(*arguments, **keywords)

        return call

    for name in ("extract_training_features", "fit_heads", "detect_all"):
        monkeypatch.setattr(rcnn_bccd, name, counted(name, getattr(rcnn_bccd, name)))
    rcnn(blocks, tmp_path)
    assert calls == ["extract_training_features", "fit_heads", "detect_all"]
    first = figures(tmp_path)
    ways = [f"{way}/ap50" for way in rcnn_bccd.VARIANTS]
    assert all(0 <= first[way] <= 1 for way in ways) and first["proposals/recall"] == 1
    assert first["svm/ap50"] > 0.5  # red and blue are told apart by any features
    assert min(first[f"{part}/seconds"] for part in ("proposals", "cnn", "heads")) > 0
    for picture in ("predictions.png", "cnn/curves.png"):
        assert (tmp_path / picture).stat().st_size > 5_000
    assert zoo.load_model("resnet18", tmp_path / "cnn")[0].num_classes == 3
    # finished: nothing is done again; a part of it gone, or damaged: that part alone
    rcnn(blocks, tmp_path)
    told = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(told[: told.index(',\n  "finished"')] + "}")
    (tmp_path / "heads.npz").write_bytes(b"broken")
    (tmp_path / "found.npz").unlink()
    rcnn(blocks, tmp_path)
    assert calls[3:] == ["fit_heads", "detect_all"]
    second = figures(tmp_path)
    assert [first[way] for way in ways] == [second[way] for way in ways]
    with pytest.raises(ValueError, match=r"^[^\n]* holds another run \(image_size 32 there"):
        layout = parallel.create_layout("jit", devices=jax.devices()[:1])
        rcnn_bccd.script(workdir=tmp_path, layout=layout, source=blocks, **KNOBS)


def test_an_interrupted_training_ends_the_script(blocks, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "fit", lambda *arguments, **keywords: {})
    rcnn(blocks, tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_fast_rcnn(blocks):
    run = RECIPES["fast_rcnn_bccd"](source=blocks, **{**KNOBS, "batch_size": 2})
    assert run.model.num_classes == 2 and len(run.train) == 3
    example = run.train[0]
    there = example["proposals"][example["proposal_valid"]]
    np.testing.assert_array_equal(there, selective_search(example["image"], SearchParameters()))
    proposals_move_with_pixels(example)
    two_steps(
        run._replace(model=run.model.clone(hidden=8, box_batch_size_per_image=8, roi_pool_size=2))
    )


def proposals_move_with_pixels(before):
    """What is in a proposal stays in it, and so in a box, mirrored or not."""
    flip = jax.jit(with_proposals(scene.flip))
    turned = []
    for seed in range(6):
        after = jax.tree.map(np.asarray, flip(jax.random.key(seed), before))
        turned.append(not np.array_equal(after["image"], before["image"]))
        for name, valid in (("boxes", "box_valid"), ("proposals", "proposal_valid")):
            np.testing.assert_array_equal(before[valid], after[valid])
            pairs = zip(before[name][before[valid]], after[name][before[valid]], strict=True)
            for pair in pairs:
                old, new = (
                    example["image"][y0:y1, x0:x1]
                    for example, (x0, y0, x1, y1) in zip(
                        (before, after), np.int32(pair), strict=True
                    )
                )
                np.testing.assert_array_equal(old[:, ::-1] if turned[-1] else old, new)
    assert 0 < sum(turned) < 6
