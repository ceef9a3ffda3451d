"""Names, fields and cards."""

import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo import pretrained, registry
from zoo.layers.conv_transpose import ConvTranspose
from zoo.profile import trace_macs


def test_lists():
    assert zoo.list_models() == sorted(zoo.list_models())
    assert zoo.list_models("lenet*") == ["lenet5", "lenet5_modern"]
    assert zoo.list_models("no such*") == []
    assert "lenet5" in zoo.list_models(task="classification")
    everything = {name for task in registry.TASKS for name in zoo.list_models(task=task)}
    assert everything == set(zoo.list_models())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.create_model("lenet6"), "unknown model 'lenet6': did you mean lenet5"),
        (lambda: zoo.model_card("lnet5_modern"), "unknown model 'lnet5_modern'.*lenet5_modern"),
        (
            lambda: zoo.create_model("lenet5", num_class=3),
            "unknown field of lenet5 'num_class': did you mean num_classes",
        ),
        (lambda: zoo.create_model("lenet5", parent=None), "unknown field of lenet5 'parent'"),
        (
            lambda: zoo.create_model("lenet5", num_classes=-1),
            "expected num_classes to be an int of at least 0, got -1",
        ),
        (
            lambda: zoo.create_model("lenet5", num_classes="ten"),
            "expected num_classes to be an int of at least 0, got 'ten'",
        ),
        (
            lambda: zoo.list_models(task="classify"),
            "unknown task 'classify': did you mean classification",
        ),
    ],
)
def test_unknown_names(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_fields_go_over_the_variants():
    assert zoo.create_model("lenet5").rbf and not zoo.create_model("lenet5", rbf=False).rbf


def test_card():
    card = zoo.model_card("lenet5")
    assert card.features == {"stage1": (2, 6), "stage2": (4, 16)}
    assert card.input == (32, 32, 1) and card.preprocessing.size == (32, 32)
    mean, std = card.preprocessing.mean[0], card.preprocessing.std[0]
    # section II.B: the paper becomes -0.1 and the ink 1.175
    assert (0 - mean) / std == pytest.approx(-0.1) and (1 - mean) / std == pytest.approx(1.175)
    assert zoo.model_card("lenet5_modern", num_classes=0).parameters == 61_706 - 850


@pytest.mark.parametrize("transposed", [nn.ConvTranspose, ConvTranspose])
def test_card_of_convolutions_of_every_kind(transposed):
    """Grouped, strided, transposed, on tokens: multiply-adds by hand."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3), feature_group_count=4, name="grouped")(x)
            x = nn.Conv(6, (3, 3), strides=2, name="strided")(x)
            x = transposed(5, (2, 2), (2, 2), name="transposed")(x)
            return nn.Dense(7, name="dense")(x.reshape(1, -1, 5))

    _, _, macs = trace_macs(Net(), (8, 8, 4))
    assert macs == 64 * 9 * 1 * 8 + 16 * 9 * 8 * 6 + 16 * 4 * 6 * 5 + 64 * 5 * 7


class Backbone(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, image, *, train=False):
        return {"stage1": nn.Conv(4, (2, 2), 2, name="conv")(image)}


class Assembly(nn.Module):
    backbone: nn.Module
    num_classes: int = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        return {"logits": self.backbone(image, train=train)["stage1"].mean((1, 2))}


def test_a_backbone_by_name(monkeypatch):
    card = dict(task="segmentation", input=(8, 8, 1), paper="", preprocessing=dict(mean=(), std=()))
    inner = types.SimpleNamespace(CARD=dict(module=Backbone, **card), VARIANTS={"inner": {}})
    row = {"outer": {"backbone": "inner"}}
    outer = types.SimpleNamespace(CARD=dict(module=Assembly, **card), VARIANTS=row)
    monkeypatch.setattr(registry, "FAMILIES", dict(inner=inner, outer=outer))
    model = zoo.create_model("outer")
    assert model.backbone == Backbone(num_classes=0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert zoo.model_card("outer").parameters == sum(w.size for w in jax.tree.leaves(variables))
    with pytest.raises(ValueError, match="unknown model 'iner': did you mean inner"):
        zoo.create_model("outer", backbone="iner")


def test_published_weights():
    """Every source is of a variant, and names it in its publisher's way."""
    tables = (
        pretrained.TORCHVISION,
        pretrained.TIMM,
        pretrained.AKAMASTER,
        pretrained.PYTORCHVIDEO,
    )
    assert set().union(*tables) <= set(zoo.list_models())
    assert set(pretrained.TIMM) <= set(zoo.list_models(task="classification"))
    repositories = [name for names in pretrained.TIMM.values() for name in names]
    assert len(set(repositories)) == len(repositories)
    words = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "patch": ""}
    for name, names in pretrained.TIMM.items():
        for repository in names:
            short = re.sub(r"^mobilenetv(\d)", r"mobilenet_v\1", repository.split(".")[0])
            short = re.sub("|".join(words), lambda word: words[word[0]], short)
            short = re.sub("_(100|224|384)$", "", short)
            assert short == name and re.search(r"\.\w+_in1k$", repository)
    for name, file in pretrained.AKAMASTER.items():
        assert re.fullmatch(rf"{name}-[0-9a-f]{{8}}\.th", file)
    (address,) = zoo.model_card("resnet20").weights
    assert address.startswith("https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/")
    assert address.endswith("/pretrained_models/resnet20-12fca82f.th")
    assert zoo.model_card("vgg16_c").weights == ()
    assert pretrained.published_sources("vit_l_32") == (
        "torchvision://IMAGENET1K_V1",
        "hf://timm/vit_large_patch32_384.orig_in21k_ft_in1k",
    )
