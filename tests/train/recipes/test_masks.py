"""The recipes of segmentation: two real steps each, and FCN's stages."""

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.train.recipes.test_photographs import two_steps
from train import parallel
from train.recipes import RECIPES, fcn8s_voc, fcn_resnet50_camvid
from zoo.media.colormap import voc_colormap
from zoo.models import fcn, vgg

SIDE = 40
TRIED = ("unet_digit_scenes", "unet_isbi2012", "fcn_resnet50_camvid", "fcn8s_voc")


def write_pair(image, mask, *, values, number, mode="L"):
    """Gray noise that is brighter where the class is higher, and the mask of its left and right."""
    generator = np.random.default_rng(number)
    classes = np.zeros((SIDE, SIDE), int)
    classes[:, generator.integers(10, 30) :] = 1
    noise = generator.integers(0, 120, (SIDE, SIDE, 3)) + 100 * classes[..., None]
    for file in (image, mask):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise if mode == "RGB" else noise[..., 0]).astype(np.uint8)).save(image)
    picture = Image.fromarray(np.array(values, np.uint8)[classes])
    if values == (0, 1) and mode == "RGB":
        picture = picture.convert("P")
        picture.putpalette(voc_colormap(256).tobytes())
    picture.save(mask)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    for number in range(4):
        pair = [folder / part / f"{number}.png" for part in ("image", "label")]
        write_pair(*pair, values=(0, 255), number=number)
    return folder


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roads")
    for number in range(6):
        part = "val" if number > 3 else "train"
        pair = [folder / name / f"{number}.png" for name in (part, f"{part}annot")]
        write_pair(*pair, values=(3, 11), number=number, mode="RGB")
    return folder


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("VOC2012")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for number in range(3):
        image = folder / "JPEGImages" / f"{number}.jpg"
        write_pair(
            image,
            folder / "SegmentationClass" / f"{number}.png",
            values=(0, 1),
            number=number,
            mode="RGB",
        )
    (lists / "train.txt").write_text("0\n1\n")
    (lists / "val.txt").write_text("2\n")
    return folder


def test_isbi(cells):
    knobs = dict(splits="0-2 / 3", crop=32, crops_per_image=2, width=4, batch_size=3, epochs=1)
    run = RECIPES["unet_isbi2012"](source=f"folder:{cells}", **knobs)
    assert len(run.train) == 6 and run.train.classes == ("membrane", "cell")
    assert run.train[0]["weight"].min() >= 1 and len(run.evaluate["val"]) == 1
    two_steps(run._replace(model=run.model.clone(depth=2)))


@pytest.mark.parametrize(
    "fields",
    [
        dict(model="unet_same", width=4),
        dict(model="unet", backbone="mobilenet_v2_035"),
        dict(backbone="resnet18"),
    ],
)
def test_camvid(fields, roads):
    run = RECIPES["fcn_resnet50_camvid"](
        source=f"folder:{roads}", **fields, crop=32, batch_size=2, epochs=1
    )
    assert len(run.train) == 4 and len(run.evaluate["val"]) == 2
    if fields.get("width"):
        two_steps(run._replace(model=run.model.clone(depth=2)))
    else:
        assert run.model.num_classes == 11


def test_median_frequency():
    class Masks:
        classes = ("a", "b", "c", "d")
        masks = np.uint8([[[0, 0, 0, 1]], [[0, 0, 2, 255]]])

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {"mask": self.masks[i]}

    # a: 5 pixels of 7 in its images, b: 1 of 4, c: 1 of 3, d: in none
    weights = fcn_resnet50_camvid.median_frequency(Masks())
    np.testing.assert_allclose(weights, [(1 / 3) * 7 / 5, (1 / 3) * 4, 1.0, 0.0])


def test_scenes_of_digits():
    two_steps(RECIPES["unet_digit_scenes"](width=4, depth=2, batch_size=2, epochs=1))


def test_fcn_by_stages(voc, tmp_path, monkeypatch):
    stages = fcn8s_voc.STAGES[:2]
    monkeypatch.setattr(fcn8s_voc, "STAGES", stages)
    monkeypatch.setattr(fcn8s_voc, "SIZE", (48, 48, 3))
    monkeypatch.setitem(vgg.VARIANTS["vgg16"], "widths", (2, 2, 2, 2, 2))
    for name in stages:
        monkeypatch.setitem(fcn.VARIANTS[name], "hidden", 4)
    layout = parallel.create_layout("jit", devices=jax.devices()[:1])
    fcn8s_voc.script(
        workdir=tmp_path,
        layout=layout,
        source=f"voc:{voc}",
        weights=None,
        epochs=1,
        learning_rate=1.0,
    )
    _, coarse = zoo.load_model("fcn32s_vgg16", tmp_path / "fcn32s_vgg16")
    _, fine = zoo.load_model("fcn16s_vgg16", tmp_path / "fcn16s_vgg16")
    assert np.abs(coarse["params"]["score"]["bias"]).max() > 0
    # the last stage learns at a hundredth of the rate: it stands where the first one left it
    for layer in ("fc6", "fc7", "score"):
        np.testing.assert_allclose(
            fine["params"][layer]["kernel"], coarse["params"][layer]["kernel"], atol=1e-2
        )
