"""How far Faster R-CNN is from torchvision's, part by part; golden files by make_detection.

Evaluation, in float32, is that of the published net, with fewer proposals: a file holds some of
every part's values. Training, in float64, is that of a smaller one whose samples take all there is,
so that nothing is left to chance.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import zoo
from tests.golden.cases import Case
from tests.golden.compare import (
    QUICKLY,
    Tensor,
    convert,
    double_precision,
    error,
    moments,
    read,
    split,
    sums,
)
from tests.golden.fill import fill, image
from zoo.losses.rcnn import rcnn_losses
from zoo.models.resnet import ResNet

SIDE = 128
SIZES = ((128, 128), (112, 96))  # of the two pictures on canvases of SIDE
NAME = "fasterrcnn_resnet50_fpn"

# The pyramid's maps are large with random weights: what keeps boxes near their anchors, and scores
# apart from each other and from 1.
SCALES = {
    "rpn.head.bbox_pred.weight": 0.02,
    "rpn.head.cls_logits.weight": 0.06,
    "roi_heads.box_predictor.bbox_pred.weight": 0.02,
    "roi_heads.box_predictor.cls_score.weight": 0.2,
}
EVALUATED = Case(
    "torchvision",
    NAME,
    NAME,
    stages={},
    size=SIDE,
    fields=dict(rpn_pre_nms_top_n=(40, 40), rpn_post_nms_top_n=(24, 24), box_detections_per_img=20),
)
TRAINED = Case(
    "torchvision",
    NAME,
    NAME,
    stages={},
    size=SIDE,
    fields=dict(
        backbone=ResNet((1, 1), block="basic"),
        anchor_sizes=((16,), (32,), (64,)),
        num_classes=7,
        width=16,
        hidden=32,
        rpn_pre_nms_top_n=(40, 40),
        rpn_post_nms_top_n=(24, 24),
        rpn_batch_size_per_image=16384,
        box_batch_size_per_image=1024,
    ),
    reference_fields=dict(depths=(1, 1)),
)
TRUTH = {  # of the two pictures; the last row is padding
    "boxes": [
        [[9.0, 14.0, 70.0, 61.0], [33.0, 40.0, 121.0, 125.0], [80.0, 5.0, 97.0, 30.0]],
        [[11.0, 21.0, 52.0, 95.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ],
    "labels": [[2, 0, 6], [4, 0, 0]],
    "box_valid": [[True, True, True], [True, False, False]],
    "size": SIZES,
}
EVERY = 61  # of the anchors' values, so many apart are kept
CLASSES = 13  # of the regions' values, those of every so many classes


def filled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The one rule of fill, times what SCALES says."""
    return fill(name, shape) * np.float32(SCALES.get(name, 1.0))


def variables_of(
    case: Case, model: nn.Module, tensors: list[Tensor], dtype: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The filled state dict as variables, and their shapes by path."""
    example = jax.ShapeDtypeStruct((1, case.size, case.size, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    expected = traverse_util.flatten_dict(shapes, sep="/")
    values = {t.name: filled(t.name, t.shape).astype(dtype) for t in tensors}
    return jax.tree.map(jnp.asarray, convert(case, expected, values)), expected


def truth(dtype: Any) -> dict[str, jax.Array]:
    kinds = dict(boxes=dtype, labels=jnp.int32, box_valid=bool, size=jnp.int32)
    return {name: jnp.asarray(TRUTH[name], kind) for name, kind in kinds.items()}


def pictures(dtype: Any) -> jax.Array:
    """The two images, zero where their canvases hold no picture."""
    pixels = image(SIDE).transpose(0, 2, 3, 1).copy()
    for picture, (height, width) in zip(pixels, SIZES, strict=True):
        picture[height:], picture[:, width:] = 0, 0
    return jnp.asarray(pixels, dtype)


def evaluation() -> dict[str, float]:
    """Errors of the parts in float32: relative ones of maps, logits and deltas, and absolute ones,
    in pixels, of "proposals" and "boxes", and of "scores"; "decisions" counts those that differ."""
    tensors, golden = read(EVALUATED)
    model = zoo.create_model(NAME, **EVALUATED.fields)
    variables, _ = variables_of(EVALUATED, model, tensors, np.float32)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def apply(variables: Any, x: jax.Array) -> Any:
        keep = lambda module, _: module.name == "fpn"
        size = {"size": jnp.asarray(SIZES, jnp.int32)}
        return model.apply(variables, x, size, capture_intermediates=keep)

    outputs, held = apply(variables, pictures(jnp.float32))
    levels = held["intermediates"]["fpn"]["__call__"][0]
    ours = parts({**outputs, "levels": levels})
    assert ours.keys() == golden.keys()
    exact = ("labels", "valid", "proposal_valid")
    pixels = ("proposals", "boxes", "scores")
    errors = {"decisions": float(sum((ours[name] != golden[name]).sum() for name in exact))}
    errors |= {name: float(np.abs(ours[name] - golden[name]).max()) for name in pixels}
    others = ours.keys() - {*exact, *pixels}
    return errors | {name: error(ours[name], golden[name]) for name in others}


def parts(outputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """All outputs of an evaluation to those that a file holds."""
    small = {
        name: np.asarray(outputs[name])
        for name in ("boxes", "scores", "labels", "valid", "proposals", "proposal_valid")
    }
    some = small["proposal_valid"][:, :, None]  # what is said of padding is of no interest
    return small | {
        "levels": np.array([[moments(x) for x in level] for level in outputs["levels"]]),
        "rpn_logits": np.asarray(outputs["rpn_logits"])[:, ::EVERY],
        "rpn_deltas": np.asarray(outputs["rpn_deltas"])[:, ::EVERY],
        "roi_logits": np.asarray(outputs["roi_logits"])[:, :, ::CLASSES] * some,
        "roi_deltas": np.asarray(outputs["roi_deltas"])[:, :, ::CLASSES] * some[..., None],
    }


def training() -> dict[str, float]:
    """Errors of each loss of each picture, and of the gradients' norms, in float64."""
    tensors, golden = read(TRAINED)
    with double_precision():
        model = zoo.create_model(NAME, **TRAINED.fields, dtype=jnp.float64)
        variables, expected = variables_of(TRAINED, model, tensors, np.float64)
        params, collections = split(variables)
        batch = truth(jnp.float64)

        def total(params: Any, x: jax.Array) -> Any:
            outputs = model.apply(
                {"params": params, **collections},
                x,
                batch,
                train=True,
                rngs={"sample": jax.random.key(0)},
            )
            losses = rcnn_losses(outputs, batch)
            return sum(jnp.sum(each) for each in losses.values()), losses

        step = jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICKLY)
        grads, losses = step(params, pictures(jnp.float64))
        numbers = {t.name: np.full(t.shape, k, np.float64) for k, t in enumerate(tensors)}
        owners, _ = split(convert(TRAINED, expected, numbers))
    norms = np.sqrt(sums(owners, jax.tree.map(jnp.square, grads), len(tensors)))
    ours = norms[[t.parameter for t in tensors]]
    floor = 1e-6 * golden["gradients"].max()
    pairs = zip(ours, golden["gradients"], strict=True)
    errors = {"gradients": max(error(a, b, floor=floor) for a, b in pairs)}
    assert losses.keys() == golden.keys() - {"gradients"}
    return errors | {name: error(losses[name], golden[name]) for name in losses}
