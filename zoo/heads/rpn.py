"""Region proposal network: head, anchors and training samples."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.ops.anchors import cell_anchors, grid_anchors
from zoo.ops.assign import match_anchors, sample_balanced
from zoo.ops.boxes import box_iou, encode_boxes
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.proposals import select_proposals

KERNEL_INIT = nn.initializers.normal(0.01)


class RPNConfig(NamedTuple):
    """Options of a region proposal network; detectors have fields of these names with `rpn_`.

    Attributes:
        pre_nms_top_n: anchors per level before suppression, in training and in evaluation.
        post_nms_top_n: proposals per image, in training and in evaluation.
        nms_thresh: IoU above which the worse proposal is removed.
        min_size: minimum side of a proposal in pixels.
        fg_iou_thresh: IoU from which an anchor is positive.
        bg_iou_thresh: IoU below which an anchor is negative.
        batch_size_per_image: anchors that are sampled per image.
        positive_fraction: maximum fraction of positive samples.
        pixel_offset: see `zoo.ops.boxes.box_area`.
        inside_only: train only anchors that lie inside the image.
        filter_small_first: see `zoo.ops.proposals.select_proposals`.
    """

    pre_nms_top_n: tuple[int, int]
    post_nms_top_n: tuple[int, int]
    nms_thresh: float
    min_size: float
    fg_iou_thresh: float
    bg_iou_thresh: float
    batch_size_per_image: int
    positive_fraction: float
    pixel_offset: float = 0.0
    inside_only: bool = False
    filter_small_first: bool = False


@final
class RPNHead(nn.Module):
    """Objectness logits and box offsets of the anchors of all maps.

    A 3x3 convolution and two 1x1 convolutions are shared by all maps.

    Attributes:
        anchors: anchors per cell.
        width: channels of the 3x3 convolution; None takes the channels of the maps.
        softmax: predict two outputs (background, object) per anchor. The returned logit is their
            difference, since sigmoid(a - b) equals softmax([a, b])[0].

    Args:
        maps: feature maps [[B, h, w, C], ...].

    Returns:
        Logits [B, N] and offsets [B, N, 4] of all anchors, ordered by map, row, column and anchor.

    Source: Ren et al. 2015, Faster R-CNN, section 3.1, figure 3; torchvision's RPNHead; softmax and
    512 channels as in py-faster-rcnn.

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
        outputs_per_map = []
        for x in maps:
            x = nn.relu(first(x))
            score = logits(x)
            if self.softmax:
                score = score[..., self.anchors :] - score[..., : self.anchors]
            outputs_per_map.append((score.reshape(len(x), -1), deltas(x).reshape(len(x), -1, 4)))
        scores, moves = zip(*outputs_per_map, strict=True)
        return jnp.concatenate(scores, 1), jnp.concatenate(moves, 1)


def pyramid_anchors(
    maps: Sequence[jax.Array],
    size: tuple[int, int],
    *,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
) -> list[jax.Array]:
    """Returns the anchors of every map of a pyramid.

    Anchors lie H // h and W // w pixels apart.

    Args:
        maps: feature maps [[B, h, w, C], ...].
        size: height and width (H, W) of the image.
        sizes: anchor sizes of each map.
        ratios: aspect ratios, height / width, of all maps.

    Returns:
        Anchors of each map [[h * w * A, 4], ...].

    Raises:
        ValueError: if the numbers of maps and of size tuples differ.

    Source: torchvision's AnchorGenerator.

    >>> maps = [jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 1, 1))]
    >>> [len(rows) for rows in pyramid_anchors(maps, (8, 8), sizes=((4,), (8,)), ratios=(1.0, 2.0))]
    [8, 2]
    """
    if len(maps) != len(sizes):
        raise ValueError(
            f"expected one tuple of anchor sizes for each of {len(maps)} maps, got {sizes}"
        )
    rows = []
    for x, map_sizes in zip(maps, sizes, strict=True):
        h, w = x.shape[1:3]
        cell = cell_anchors(map_sizes, ratios)
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
    """Samples the anchors that an image is trained on, with their targets.

    An anchor is positive if its IoU is at least `fg_iou_thresh` or the best of some box, and
    negative below `bg_iou_thresh`.

    Args:
        key: random key.
        anchors: anchors [N, 4].
        boxes: ground truth boxes [n, 4].
        valid: rows of `boxes` that are not padding [n] bool.
        fg_iou_thresh: IoU from which an anchor is positive.
        bg_iou_thresh: IoU below which an anchor is negative.
        batch_size: number of samples M.
        positive_fraction: at most this fraction of the samples is positive.
        pixel_offset: see `zoo.ops.boxes.box_area`.
        inside_size: height and width [2] of the image; anchors that cross its border are not used.

    Returns:
        `indices` [M], `positive` [M], `valid` [M] and `targets` [M, 4].

    Source: Ren et al. 2015, Faster R-CNN, section 3.1.2; torchvision also uses anchors that cross
    the border.

    >>> anchors = jnp.array([[0.0, 0, 8, 8], [20, 20, 28, 28]])
    >>> boxes, valid = jnp.array([[0.0, 0, 8, 8]]), jnp.array([True])
    >>> options = dict(fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size=2, positive_fraction=0.5)
    >>> samples = sample_anchors(jax.random.key(0), anchors, boxes=boxes, valid=valid, **options)
    >>> dict(zip(samples["indices"].tolist(), samples["positive"].tolist()))
    {0: True, 1: False}
    """
    iou = box_iou(boxes, anchors, pixel_offset=pixel_offset)
    is_inside = jnp.ones(len(anchors), bool)
    if inside_size is not None:
        height, width = inside_size.astype(anchors.dtype)
        ends = jnp.stack([width, height]) - pixel_offset
        is_inside = jnp.all((anchors[:, :2] >= 0) & (anchors[:, 2:] <= ends[None]), 1)
        iou = jnp.where(is_inside[None], iou, -1.0)  # excluded from the best match of a box, too
    matched = match_anchors(iou, valid, fg_iou_thresh=fg_iou_thresh, bg_iou_thresh=bg_iou_thresh)
    indices, positive, is_sampled = sample_balanced(
        key,
        (matched >= 0) & is_inside,
        (matched == -1) & is_inside,
        batch_size=batch_size,
        positive_fraction=positive_fraction,
    )
    matched_boxes = boxes[jnp.maximum(matched[indices], 0)]
    targets = encode_boxes(matched_boxes, anchors[indices], pixel_offset=pixel_offset)
    targets = jnp.where((positive & is_sampled)[:, None], targets, 0.0)
    return {
        "indices": indices,
        "positive": positive & is_sampled,
        "valid": is_sampled,
        "targets": targets,
    }


def propose(
    logits: jax.Array,
    deltas: jax.Array,
    anchors: Sequence[jax.Array],
    *,
    sizes: jax.Array,
    config: RPNConfig,
    train: bool,
) -> tuple[jax.Array, jax.Array]:
    """Selects the proposals of a batch.

    Args:
        logits: objectness logits [B, N].
        deltas: box offsets [B, N, 4].
        anchors: anchors of each level [[n, 4], ...], N together.
        sizes: height and width of each image [B, 2].
        config: options.
        train: use the numbers of training.

    Returns:
        Proposals [B, P, 4] and `valid` [B, P].
    """
    select = partial(
        select_proposals,
        anchors=jnp.concatenate(anchors),
        levels=[len(rows) for rows in anchors],
        pre_nms_top_n=config.pre_nms_top_n[not train],
        post_nms_top_n=config.post_nms_top_n[not train],
        nms_thresh=config.nms_thresh,
        min_size=config.min_size,
        pixel_offset=config.pixel_offset,
        filter_small_first=config.filter_small_first,
    )
    boxes, _, valid = jax.vmap(select)(logits, deltas, size=sizes)
    return boxes, valid


def rpn_targets(
    keys: jax.Array,
    logits: jax.Array,
    deltas: jax.Array,
    *,
    anchors: Sequence[jax.Array],
    targets: Mapping[str, jax.Array],
    sizes: jax.Array,
    config: RPNConfig,
) -> dict[str, jax.Array]:
    """Samples the anchors of a batch and gathers predictions and targets for the loss.

    Args:
        keys: random keys [B].
        logits: objectness logits [B, N].
        deltas: box offsets [B, N, 4].
        anchors: anchors of each level [[n, 4], ...], N together.
        targets: ground truth: `boxes` [B, n, 4] and `box_valid` [B, n].
        sizes: height and width of each image [B, 2].
        config: options.

    Returns:
        `rpn_logits`, `rpn_positive`, `rpn_valid` [B, M], `rpn_deltas` and `rpn_targets` [B, M, 4].
    """
    sample = partial(
        sample_anchors,
        anchors=jnp.concatenate(anchors),
        fg_iou_thresh=config.fg_iou_thresh,
        bg_iou_thresh=config.bg_iou_thresh,
        batch_size=config.batch_size_per_image,
        positive_fraction=config.positive_fraction,
        pixel_offset=config.pixel_offset,
    )
    inside = {"inside_size": sizes} if config.inside_only else {}

    def sample_image(key: jax.Array, **image: Any) -> dict[str, jax.Array]:
        return sample(key, **image)

    samples = jax.vmap(sample_image)(
        keys, boxes=targets["boxes"], valid=targets["box_valid"], **inside
    )
    rows = samples.pop("indices")
    samples["logits"] = jnp.take_along_axis(logits, rows, 1)
    samples["deltas"] = jnp.take_along_axis(deltas, rows[..., None], 1)
    return {f"rpn_{name}": values for name, values in samples.items()}
