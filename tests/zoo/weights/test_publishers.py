"""Published weights: their addresses, their preprocessing, and load_model on files of others."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.preprocess import Preprocessing
from zoo.pretrained import TORCHVISION
from zoo.weights import publishers, read_card

NAME = "lenet5_modern"
# A torch LeNet-5 as tutorials write it; c5 is a dense layer on the flattened 16 x 5 x 5 map there.
TABLE = [
    ("conv1", "c1", "conv"),
    ("conv2", "c3", "conv"),
    ("conv3", "c5", "conv"),
    ("fc1", "f6", "dense"),
    ("fc2", "output", "dense"),
    ("more", None, "dense"),
]
SIZES = {
    "conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
    "conv3.weight": (120, 16, 5, 5), "conv3.bias": (120,),
    "fc1.weight": (84, 120), "fc1.bias": (84,),
    "fc2.weight": (10, 84), "fc2.bias": (10,),
    "more.weight": (2, 2),
}  # fmt: skip


@pytest.fixture
def tensors(monkeypatch):
    monkeypatch.setitem(publishers.SOURCES, "tutorial", {"lenet": [TABLE]})
    random = np.random.default_rng(0)
    return {name: random.normal(size=size).astype(np.float32) for name, size in SIZES.items()}


def saved(folder: pathlib.Path, tensors: dict) -> pathlib.Path:
    np.savez(folder / "weights.pth", **tensors)
    return folder / "weights.pth.npz"


def test_a_file_of_others(tensors, tmp_path):
    model, variables = zoo.load_model(NAME, saved(tmp_path, tensors))
    assert model == zoo.create_model(NAME)
    params = variables["params"]
    assert isinstance(params["c1"]["kernel"], jax.Array)
    np.testing.assert_array_equal(
        params["c3"]["kernel"][1, 2], tensors["conv2.weight"][:, :, 1, 2].T
    )
    np.testing.assert_array_equal(params["f6"]["kernel"], tensors["fc1.weight"].T)
    paths = {f"params/{a}/{b}": np.asarray(x) for a, c in params.items() for b, x in c.items()}
    back = publishers.export_tensors(NAME, paths, source="tutorial")
    del tensors["more.weight"]
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in back)


def test_fields_that_the_shapes_tell(tensors, tmp_path):
    tensors |= {"fc2.weight": np.zeros((3, 84), np.float32), "fc2.bias": np.zeros(3, np.float32)}
    path = saved(tmp_path, tensors)
    assert zoo.load_model(NAME, path)[0].num_classes == 3
    assert zoo.load_model(NAME, path, num_classes=0)[0].num_classes == 0
    with pytest.warns(UserWarning, match="fresh head for 4 classes, where .* has 3: params/output"):
        _, variables = zoo.load_model(NAME, path, num_classes=4)
    assert variables["params"]["output"]["kernel"].shape == (84, 4)
    del tensors["fc2.weight"], tensors["fc2.bias"]
    assert zoo.load_model(NAME, saved(tmp_path, tensors))[0].num_classes == 0


def test_half_precision(tensors, tmp_path):
    half = {name: x.astype(jnp.bfloat16) for name, x in tensors.items()}
    _, variables = zoo.load_model(NAME, saved(tmp_path, half))
    kernel = variables["params"]["f6"]["kernel"]
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(kernel, tensors["fc1.weight"].T, rtol=1e-2)


def test_one_error_lists_everything(tensors, tmp_path):
    tensors["conv9.weight"] = tensors.pop("conv1.weight")
    tensors["conv2.weight"] = tensors["conv2.weight"][:, :, 0, 0]
    with pytest.raises(ValueError) as caught:
        zoo.load_model(NAME, saved(tmp_path, tensors))
    text = str(caught.value)
    assert "\n" not in text
    assert "unused: conv9.weight; missing: params/c1/kernel; misshapen: params/c3/kernel" in text
    assert "float32[6, 16] for float32[5, 5, 6, 16]" in text


def test_weights_of_another_model(tmp_path):
    random = {"fc.weight": np.zeros((3, 2), np.float32)}
    with pytest.raises(ValueError, match="unused: fc.weight; missing: params/c1"):
        zoo.load_model(NAME, saved(tmp_path, random))


def test_a_model_that_has_but_ten_classes(tmp_path):
    """lenet5 refuses another number, so its head is not looked for."""
    with pytest.raises(ValueError, match="unused: a; missing: params/c1/bias"):
        zoo.load_model("lenet5", saved(tmp_path, {"a": np.zeros(1)}))


def test_export_needs_names():
    with pytest.raises(ValueError, match="unknown source 'torchvison': did you mean torchvision"):
        publishers.export_tensors(NAME, {}, source="torchvison")
    with pytest.raises(ValueError, match="timm has no names for lenet5_modern"):
        publishers.export_tensors(NAME, {}, source="timm")


def test_export_of_what_has_no_name(tensors):
    with pytest.raises(ValueError, match="tutorial has no names for params/c9/kernel of lenet5_m"):
        publishers.export_tensors(NAME, {"params/c9/kernel": np.zeros(1)}, source="tutorial")


def test_published():
    files = [row[0] for tags in TORCHVISION.values() for row in tags.values()]
    assert len(files) == len(set(files)) == 47
    assert all(re.fullmatch(r"\w+(-owt|_lc_swag)?-[0-9a-f]{8}\.pth", file) for file in files)
    for name, tags in TORCHVISION.items():
        for tag, (file, top1, *_) in tags.items():
            least = 30 if "rcnn" in name else 50  # box AP, and else accuracy or IoU
            assert file.startswith(name) and least < top1 < 90
            card = publishers.fetch_preprocessing(f"torchvision://{tag}", name=name)
            Preprocessing(**card["preprocessing"])


def test_preprocessing_of_clips():
    card = read_card("torchvision://KINETICS400_V1", "r2plus1d_18")
    seen = Preprocessing(**card["preprocessing"])
    assert (seen.size, round(112 / seen.crop), seen.frames) == ((112, 112), 128, 16)
    assert card["reported"] == "Kinetics-400 top-1 67.463 %"
    assert seen == zoo.model_card("r2plus1d_18").preprocessing


@pytest.mark.parametrize(
    ("name", "tag", "size", "short", "interpolation"),
    [
        ("resnet50", "IMAGENET1K_V1", 224, 256, "bilinear"),
        ("resnet50", "IMAGENET1K_V2", 224, 232, "bilinear"),
        ("fcn_resnet101", "COCO_WITH_VOC_LABELS_V1", 520, 520, "bilinear"),
        ("vit_l_16", "IMAGENET1K_V1", 224, 242, "bilinear"),
        ("vit_h_14", "IMAGENET1K_SWAG_E2E_V1", 518, 518, "bicubic"),
    ],
)
def test_preprocessing_of_a_tag(name, tag, size, short, interpolation):
    card = read_card(f"torchvision://{tag}", name)
    seen = Preprocessing(**card["preprocessing"])
    assert (seen.size, seen.interpolation) == ((size, size), interpolation)
    assert round(size / seen.crop) == short
    measure = "COCO val2017, VOC's classes: mean IoU" if "COCO" in tag else "ImageNet top-1"
    assert card["reported"].startswith(measure)
    assert seen.mean == (0.485, 0.456, 0.406) and seen.std == (0.229, 0.224, 0.225)


def test_a_detectors_preprocessing():
    """torchvision's: short side 800, long one 1333 at most, padded to multiples of 32."""
    card = read_card("torchvision://COCO_V1", "fasterrcnn_resnet50_fpn")
    seen = Preprocessing(**card["preprocessing"])
    assert (seen.size, seen.sides, seen.crop) == ((800, 1344), (800, 1333), 1.0)
    assert card["reported"] == "COCO val2017: box AP 37.0 %"
    assert seen == zoo.model_card("fasterrcnn_resnet50_fpn").preprocessing


def test_tags_that_are_none():
    with pytest.raises(ValueError, match="unknown weights of resnet50 'IMAGENET1K_V3': did you me"):
        publishers.locate_file("torchvision://IMAGENET1K_V3", name="resnet50")
    with pytest.raises(ValueError, match="torchvision publishes no weights of lenet5"):
        zoo.load_model("lenet5", "torchvision://IMAGENET1K_V1")
    with pytest.raises(ValueError, match="expected a model name with the tag"):
        publishers.locate_file("torchvision://IMAGENET1K_V1")


TIMM = {  # as timm writes config.json, less what does not matter here
    "architecture": "resnet50",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "a1_in1k", "input_size": [3, 224, 224], "crop_pct": 0.95, "crop_mode": "center",
        "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    },
}  # fmt: skip
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": TIMM}, ((224, 224), 0.95, "bicubic", 0.485)),
        (
            {
                "config.json": {"model_type": "vit"},
                "preprocessor_config.json": {
                    "do_resize": True, "resample": 2, "size": {"height": 224, "width": 224}, **HALVES,
                },
            },
            ((224, 224), 1.0, "bilinear", 0.5),
        ),
        (
            {"preprocessor_config.json": {"crop_pct": 0.875, "resample": 3, "size": 224, **HALVES}},
            ((224, 224), 0.875, "bicubic", 0.5),
        ),
        (
            {
                "preprocessor_config.json": {
                    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
                    "resample": 2, "size": {"shortest_edge": 256}, **HALVES,
                }
            },
            ((224, 224), 0.875, "bilinear", 0.5),
        ),
        ({"config.json": [1], "preprocessor_config.json": {"size": "big"}}, None),
        ({"config.json": {"pretrained_cfg": {"mean": 3}}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_preprocessing_of_the_hub(files, expected, tmp_path, monkeypatch):
    asked = []

    def fetch(url):
        asked.append(url)
        file = url.rpartition("/")[2]
        if file not in files:
            raise FileNotFoundError(url)
        path = tmp_path / file
        path.write_text(json.dumps(files[file]))
        return path

    monkeypatch.setattr(publishers, "fetch", fetch)
    card = publishers.fetch_preprocessing("hf://timm/resnet50.a1_in1k/model.safetensors")
    assert asked[0] == "hf://timm/resnet50.a1_in1k/config.json"
    if expected is None:
        assert card == {}
    else:
        seen = Preprocessing(**card["preprocessing"])
        assert (seen.size, seen.crop, seen.interpolation, seen.mean[0]) == expected


def test_addresses(tensors, tmp_path, monkeypatch):
    path = saved(tmp_path, tensors)
    asked = []
    monkeypatch.setattr(publishers, "fetch", lambda url: asked.append(url) or path)
    for source in ("https://a.org/b.pth", "hf://org/repo", "torchvision://IMAGENET1K_V2"):
        name = "resnet50" if source.startswith("torchvision") else NAME
        assert publishers.locate_file(source, name=name) == path
    assert asked[2] == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert zoo.load_model(NAME, "hf://org/repo")[0] == zoo.create_model(NAME)
