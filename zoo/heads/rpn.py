"""Region proposals: which anchors hold an object, where it is, and what they are trained on."""

from collections.abc import Sequence
from functools import partial
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.ops.anchors import cell_anchors, grid_anchors
from zoo.ops.assign import match_anchors, sample_balanced
from zoo.ops.boxes import box_iou, encode_boxes
from zoo.ops.convolution import conv_general_dilated

KERNEL_INIT = nn.initializers.normal(0.01)


@final
class RPNHead(nn.Module):
    """`[[B, h, w, C], ...] -> [B, N], [B, N, 4]`: logits and deltas of the anchors of all maps.

    `anchors` at each place, rows, columns and anchors in this order; 3x3 of `width` channels (the
    maps' own if None) and two 1x1 are the same for all maps. With `softmax` an anchor has two
    outputs, the background's before the object's, and the logit is their difference: of the
    sigmoid it is what both are of the softmax.

    Source: Ren et al. 2015, Faster R-CNN, section 3.1, figure 3; torchvision's RPNHead; softmax and
    512 channels are py-faster-rcnn's.

    >>> maps = [jnp.ones((1, 4, 4, 6)), jnp.ones((1, 2, 2, 6))]
    >>> (logits, deltas), _ = jax.eval_shape(RPNHead(3).init_with_output, jax.random.key(0), maps)
    >>> logits.shape, deltas.shape
    ((1, 60), (1, 60, 4))
    """

    anchors: int
    width: int | None = None
    softmax: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        conv = partial(nn.Conv, kernel_init=KERNEL_INIT, conv_general_dilated=conv_general_dilated)
        wide = jnp.promote_types(jnp.float32, self.dtype)
        first = conv(
            self.width or maps[0].shape[-1],
            (3, 3),
            padding=[1, 1],
            dtype=self.dtype,
            name="conv",
        )
        outputs = 2 * self.anchors if self.softmax else self.anchors
        logits = conv(outputs, (1, 1), dtype=wide, name="logits")
        deltas = conv(4 * self.anchors, (1, 1), dtype=wide, name="deltas")
        found = []
        for x in maps:
            x = nn.relu(first(x))
            score = logits(x)
            if self.softmax:
                score = score[..., self.anchors :] - score[..., : self.anchors]
            found.append((score.reshape(len(x), -1), deltas(x).reshape(len(x), -1, 4)))
        scores, moves = zip(*found, strict=True)
        return jnp.concatenate(scores, 1), jnp.concatenate(moves, 1)


def pyramid_anchors(
    maps: Sequence[jax.Array],
    size: tuple[int, int],
    *,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
) -> list[jax.Array]:
    """`[[B, h, w, C], ...], (H, W) -> [[h * w * A, 4], ...]`: the anchors of each map.

    Every map has its own `sizes`, all the same `ratios` of height to width. Anchors lie H // h and
    W // w pixels apart.

    Source: torchvision's AnchorGenerator.

    >>> maps = [jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 1, 1))]
    >>> [len(rows) for rows in pyramid_anchors(maps, (8, 8), sizes=((4,), (8,)), ratios=(1.0, 2.0))]
    [8, 2]
    """
    if len(maps) != len(sizes):
        raise ValueError(
            f"sizes of anchors are one tuple for each of {len(maps)} maps, got {sizes}"
        )
    rows = []
    for x, own in zip(maps, sizes, strict=True):
        h, w = x.shape[1:3]
        cell = cell_anchors(own, ratios)
        rows.append(grid_anchors(cell, (h, w), (size[0] // h, size[1] // w)))
    return rows


def sample_anchors(
    key: jax.Array,
    anchors: jax.Array,
    *,
    boxes: jax.Array,
    valid: jax.Array,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    batch_size: int,
    positive_fraction: float,
    pixel_offset: float = 0.0,
    inside_size: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """`key, [N, 4], boxes [n, 4], valid [n] -> {indices, positive, valid [count], targets [count, 4]}`.

    The anchors that an image trains on, and what they are to say. An anchor is positive from an IoU
    of `fg_iou_thresh` on, or where it is some box's best, negative below `bg_iou_thresh`. At most `positive_fraction` of the
    `batch_size` are positive. With `inside_size`, a picture's size [2], anchors that reach out of it are
    neither.

    Source: Ren et al. 2015, Faster R-CNN, section 3.1.2; torchvision takes those that reach out.

    >>> anchors = jnp.array([[0.0, 0, 8, 8], [20, 20, 28, 28]])
    >>> boxes, valid = jnp.array([[0.0, 0, 8, 8]]), jnp.array([True])
    >>> told = dict(boxes=boxes, valid=valid, fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size=2, positive_fraction=0.5)
    >>> samples = sample_anchors(jax.random.key(0), anchors, **told)
    >>> dict(zip(samples["indices"].tolist(), samples["positive"].tolist()))
    {0: True, 1: False}
    """
    iou = box_iou(boxes, anchors, pixel_offset=pixel_offset)
    within = jnp.ones(len(anchors), bool)
    if inside_size is not None:
        height, width = inside_size.astype(anchors.dtype)
        ends = jnp.stack([width, height]) - pixel_offset
        within = jnp.all((anchors[:, :2] >= 0) & (anchors[:, 2:] <= ends[None]), 1)
        iou = jnp.where(within[None], iou, -1.0)  # nobody's best either
    matched = match_anchors(iou, valid, fg_iou_thresh=fg_iou_thresh, bg_iou_thresh=bg_iou_thresh)
    indices, positive, drawn = sample_balanced(
        key,
        (matched >= 0) & within,
        (matched == -1) & within,
        batch_size=batch_size,
        positive_fraction=positive_fraction,
    )
    truth = boxes[jnp.maximum(matched[indices], 0)]
    targets = encode_boxes(truth, anchors[indices], pixel_offset=pixel_offset)
    targets = jnp.where((positive & drawn)[:, None], targets, 0.0)
    return {"indices": indices, "positive": positive & drawn, "valid": drawn, "targets": targets}
