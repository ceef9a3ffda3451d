"""Faster R-CNN and Fast R-CNN: counts by hand, what they train on, and what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.golden.compare import read
from tests.golden.detection import EVALUATED
from tests.zoo.test_models import COUNTS
from zoo.heads.roi import sample_rois
from zoo.heads.rpn import sample_anchors
from zoo.losses import rcnn_losses
from zoo.models.faster_rcnn import FasterRCNN
from zoo.models.resnet import ResNet
from zoo.models.vgg import VGG
from zoo.profile import trace_macs
from zoo.weights.adapt import trace_shapes
from zoo.weights.publishers import rename_tensors

H, W = 64, 96
PICTURE = dict(size=jnp.array([[64, 96], [48, 64], [64, 96]]))
TRUTH = dict(  # two objects; none; of no size, outside of the picture, and not a number
    boxes=jnp.array(
        [
            [[8.0, 8, 40, 40], [50, 20, 90, 60], [0, 0, 0, 0]],
            [[0.0, 0, 0, 0]] * 3,
            [[30.0, 30, 30, 50], [-500, -500, -400, -400], [np.nan, 0, 9, 9]],
        ]
    ),
    labels=jnp.array([[2, 0, 0], [0, 0, 0], [1, 1, 1]]),
    box_valid=jnp.array([[True, True, False], [False] * 3, [True] * 3]),
    **PICTURE,
)
FEW = dict(
    rpn_pre_nms_top_n=(40, 30),
    rpn_post_nms_top_n=(20, 10),
    rpn_batch_size_per_image=32,
    box_batch_size_per_image=16,
    box_detections_per_img=7,
)


@pytest.fixture(scope="module")
def case(request, draw):
    if request.param == "pyramid":
        model = zoo.create_model(
            "faster_rcnn",
            backbone=ResNet((1,), block="basic", width=8),
            num_classes=3,
            width=8,
            hidden=12,
            anchor_sizes=((16,), (32,)),
            **FEW,
        )
    elif request.param == "2015":
        backbone = VGG(widths=(2, 3, 4, 5, 6), depths=(1, 1, 1, 1, 1))
        fields = dict(backbone=backbone, num_classes=3, width=8, hidden=12, dropout=0.0)
        model = zoo.create_model("fasterrcnn_vgg16", **fields, **FEW)
    else:
        backbone = VGG(widths=(2, 3, 4, 5, 6), depths=(1, 1, 1, 1, 1))
        fields = dict(
            backbone=backbone,
            num_classes=3,
            hidden=12,
            box_batch_size_per_image=16,
            box_detections_per_img=7,
        )
        model = zoo.create_model("fast_rcnn_vgg16", **fields)
    image = np.random.default_rng(0).normal(size=(3, H, W, 3)).astype(np.float32)
    given = dict(
        proposals=jnp.tile(
            jnp.array([[[4.0, 4, 44, 44], [60, 10, 95, 63], [0, 0, 20, 9]]]), (3, 1, 1)
        ),
        proposal_valid=jnp.array([[True] * 3, [True, False, True], [True] * 3]),
    )
    return model, draw(model, (H, W, 3)), image, given if request.param == "fast" else {}


@pytest.mark.parametrize("case", ["pyramid", "2015"], indirect=True)
def test_training_is_sound_whatever_the_truth(case):
    """Images without objects and broken boxes: finite losses and gradients, targets in range."""
    model, variables, image, given = case

    @jax.jit
    def step(params, key):
        def total(params):
            found, _ = model.apply(
                {**variables, "params": params},
                image,
                {**TRUTH, **given},
                train=True,
                rngs={"sample": key, "dropout": key},
                mutable=["batch_stats"],
            )
            losses = rcnn_losses(found, TRUTH)
            return sum(jnp.sum(each) for each in losses.values()), (found, losses)

        return jax.grad(total, has_aux=True)(params)

    grads, (found, losses) = step(variables["params"], jax.random.key(0))
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.isfinite(grad).all(), jax.tree_util.keystr(path)
    assert all(np.isfinite(each).all() and (each >= 0).all() for each in losses.values())
    labels, valid = np.asarray(found["roi_labels"]), np.asarray(found["roi_valid"])
    # the boxes themselves are among the regions, so that there is always one of each object
    assert set(labels[0]) == {0, 1, 3} and not labels[1].any()
    assert valid[0].any() and (losses["roi_boxes"][1] == 0)
    assert np.abs(found["roi_targets"][1]).max() == 0
    if "rpn_positive" in found:
        is_pyramid = isinstance(model, FasterRCNN)
        positive = np.asarray(found["rpn_positive"])
        # all of the paper's anchors are larger than these pictures
        assert positive[0].any() == is_pyramid and not positive[1].any()
        assert np.asarray(found["rpn_valid"]).sum(1).max() <= model.rpn_batch_size_per_image
        _, (other, _) = step(variables["params"], jax.random.key(1))
        same = np.array_equal(found["rpn_logits"], other["rpn_logits"])
        assert same != is_pyramid  # another key, other anchors


@pytest.mark.parametrize("case", ["pyramid", "fast"], indirect=True)
def test_boxes_lie_in_the_picture_best_first(case):
    model, variables, image, given = case
    apply = jax.jit(functools.partial(model.clone(box_score_thresh=0.0).apply, variables))
    found = jax.tree.map(np.asarray, apply(image, {**PICTURE, **given}))
    assert found["boxes"].shape == (3, 7, 4) and found["labels"].dtype == np.int32
    assert found["valid"].any(1).all()
    for i, (height, width) in enumerate(np.asarray(PICTURE["size"])):
        boxes, scores = found["boxes"][i][found["valid"][i]], found["scores"][i]
        assert boxes.min() >= 0
        assert boxes[:, [0, 2]].max() <= width and boxes[:, [1, 3]].max() <= height
        assert (np.diff(scores) <= 0).all() and scores.max() <= 1
        assert set(found["labels"][i]) <= {0, 1, 2}


@pytest.fixture(scope="module")
def published():
    return trace_shapes(zoo.create_model("fasterrcnn_resnet50_fpn"), (64, 64, 3))


def test_frozen_numbers_are_no_parameters(published):
    numbers = {"params": 0, "batch_stats": 0}
    for path, each in published.items():
        if not path.endswith(("mean", "var")):
            numbers[path.split("/")[0]] += each.size
    assert numbers == {"params": 41_755_286, "batch_stats": 53_120}


def test_multiply_adds_by_hand():
    """VGG-16's trunk at 600 x 1000, poolings rounded up, RPN, and the head for 300 regions."""
    sides, trunk, before = (600, 1000), 0, 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            trunk += 9 * before * width * sides[0] * sides[1]
            before = width
        last, sides = sides, tuple(-(-side // 2) for side in sides)
    rpn = last[0] * last[1] * 512 * (9 * 512 + 18 + 36)
    head = 512 * 49 * 4096 + 4096 * 4096 + 4096 * (21 + 84)
    assert last == (38, 63) and COUNTS["fasterrcnn_vgg16"][1] == trunk + rpn + 300 * head
    assert COUNTS["fast_rcnn_vgg16"][1] == trunk + head  # the picture its one proposal


def test_weights_by_hand():
    """ResNet-18's 11,176,512, pyramid, proposals and head for 20 classes."""
    pyramid = (64 + 128 + 256 + 512) * 64 + 4 * 64 + 4 * (9 * 64 * 64 + 64)
    proposals = 9 * 64 * 64 + 64 + 15 * 65
    head = (49 * 64 + 1) * 256 + 257 * 256 + 257 * (21 + 84)
    assert COUNTS["faster_rcnn"][0] == 11_176_512 + pyramid + proposals + head


def test_over_another_backbone():
    other = zoo.create_model("faster_rcnn", backbone="mobilenet_v2_035", num_classes=3)
    assert trace_shapes(other, (64, 64, 3))["params/head/deltas/kernel"].shape == (256, 16)


def test_levels_are_the_backbones():
    model = zoo.create_model("faster_rcnn", anchor_sizes=((8,),) * 7)
    with pytest.raises(ValueError, match="expected anchor_sizes of 2 to 5 levels, .*, got 7"):
        trace_macs(model, (64, 64, 3))


def test_the_file_of_2019_has_older_names(published):
    tensors, _ = read(EVALUATED)
    old = {
        "backbone.fpn.inner_blocks.0.0.weight": "backbone.fpn.inner_blocks.0.weight",
        "backbone.fpn.layer_blocks.3.0.bias": "backbone.fpn.layer_blocks.3.bias",
        "rpn.head.conv.0.0.weight": "rpn.head.conv.weight",
    }
    names = [old.get(tensor.name, tensor.name) for tensor in tensors]
    assert len(set(names) & set(old.values())) == 3
    given = {
        name: np.broadcast_to(np.float32(0), tensor.shape)
        for name, tensor in zip(names, tensors, strict=True)
    }
    assert rename_tensors("fasterrcnn_resnet50_fpn", given, published).keys() == published.keys()


def test_inside_anchors_alone():
    """The one that reaches out is nobody's, not even where it is the best; the next one is."""
    anchors = jnp.array([[-2.0, 0, 29, 31], [4, 4, 33, 33], [40, 0, 60, 20], [50, 0, 64, 20]])
    scene = dict(boxes=jnp.array([[0.0, 0, 31, 31]]), valid=jnp.array([True]), pixel_offset=1.0)
    fields = dict(
        fg_iou_thresh=0.9,
        bg_iou_thresh=0.3,
        batch_size=4,
        positive_fraction=0.5,
        inside_size=jnp.array([64, 64]),
    )
    draw = jax.jit(functools.partial(sample_anchors, **scene, **fields))  # else op by op
    found = draw(jax.random.key(0), anchors)
    rows = np.asarray(found["indices"])[np.asarray(found["valid"])]
    assert sorted(rows) == [1, 2]  # the last one ends at pixel 64 of 0 to 63
    assert rows[np.asarray(found["positive"])[: len(rows)]].tolist() == [1]


def test_background_from_a_tenth_on():
    truth = dict(boxes=jnp.array([[0.0, 0, 9, 9]]), labels=jnp.array([1]))
    truth |= dict(box_valid=jnp.array([True]))
    rois = jnp.array([[0.0, 0, 9, 4], [0, 0, 9, 2], [0, 0, 4, 1], [50, 50, 60, 60]])
    fields = dict(
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        min_bg_iou=0.1,
        batch_size=8,
        positive_fraction=0.5,
        pixel_offset=1.0,
    )
    draw = jax.jit(functools.partial(sample_rois, ground_truth=truth, **fields))
    found = draw(jax.random.key(0), rois, jnp.ones(4, bool))
    kept = np.asarray(found["valid"])
    labels = dict(
        zip(map(tuple, np.asarray(found["rois"])[kept]), np.asarray(found["labels"])[kept])
    )
    # IoU 1 (the box itself), 0.5, 0.3; 0.1 is background still, 0 is none of the two
    assert labels == {(0, 0, 9, 9): 2, (0, 0, 9, 4): 2, (0, 0, 9, 2): 0, (0, 0, 4, 1): 0}
