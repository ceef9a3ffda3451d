"""Fast R-CNN: proposals come from outside."""

from functools import partial
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.heads.roi import (
    BoxHead,
    feature_scale,
    infer_num_classes,
    postprocess_detections,
    sample_rois,
)
from zoo.heads.targets import BOX_KEYS, Targets, image_sizes, require_keys
from zoo.layers.backbone import configure_backbone, select_stages
from zoo.ops.roi import roi_pool

Outputs = dict[str, jax.Array]
normal_init = nn.initializers.normal


@final
class FastRCNN(nn.Module):
    """`[B, H, W, C] -> {stage1 ... stageN, boxes [B, M, 4], scores, labels, valid [B, M], ...}`.

    RoI pooling of `pool` x `pool` cells from the last stage of `backbone`, two layers of `hidden`
    units with `dropout`, and for each class a score and a box. `truth` holds "proposals" [B, P, 4]
    and "proposal_valid" [B, P]; without it the picture itself is the one proposal. In evaluation,
    where it may hold "size" [B, 2], beside the M = `postprocess_detections` best, highest score first, there
    are `proposals`, `proposal_valid`, `roi_logits` [B, P, K + 1], background first, and
    `roi_deltas` [B, P, K + 1, 4].

    In training it also holds boxes, labels and box_valid; the boxes are proposals too. The outputs
    are what zoo.losses.rcnn compares: of `box_batch_size_per_image` regions an image `roi_logits`,
    `roi_deltas`, `roi_labels` (0 the background), `roi_targets`, `roi_valid`, at most `box_positive_fraction` of
    them of an IoU of `roi_iou`[1] and more, the others of `roi_iou`[0] up to that, drawn with the
    random stream `sample`. Targets are divided by `deviations`; pixels are part of a box on
    both sides.

    `dtype`, `axis_name` and `scan` are the backbone's too. `num_classes=0` leaves all but
    the stages out.

    Source: Girshick 2015, Fast R-CNN, sections 2 and 3; the authors' code, whose deviations are
    measured class by class: about these, as py-faster-rcnn sets them.

    >>> from zoo.models.vgg import VGG
    >>> model = FastRCNN(VGG(widths=(2, 2, 2, 2, 4)), hidden=8)
    >>> image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["boxes"].shape, out["roi_logits"].shape
    ((1, 100, 4), (1, 1, 21))
    """

    backbone: nn.Module
    num_classes: int = 20
    hidden: int = 4096
    dropout: float = 0.5
    pool: int = 7
    roi_iou: tuple[float, float] = (0.1, 0.5)
    box_batch_size_per_image: int = 64
    box_positive_fraction: float = 0.25
    deviations: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    score: float = 0.05
    nms: float = 0.3
    detections: int = 100
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        wished = {"ceil": True} if hasattr(self.backbone, "ceil") else {}  # Caffe's poolings
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **wished)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, targets: Targets | None = None, *, train: bool = False
    ) -> Outputs:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        x = outputs[f"stage{len(outputs)}"]
        sizes = image_sizes(image, targets)
        rois, valid = external_proposals(sizes, targets)
        found: Outputs = {"proposals": rois, "proposal_valid": valid}
        if train:
            keys = jax.random.split(self.make_rng("sample"), len(image))
            boxes = require_keys(targets, keys=(*BOX_KEYS, "proposals", "proposal_valid"))
            chosen = self.roi_targets(keys, boxes)
            rois = chosen.pop("rois")
            found = {f"roi_{name}": values for name, values in chosen.items()}
        scale = feature_scale(image.shape[1], x.shape[1])
        cut = partial(roi_pool, output_size=(self.pool, self.pool), spatial_scale=scale)
        head = BoxHead(
            self.num_classes,
            self.hidden,
            self.dropout,
            kernel_init=normal_init(0.005),
            logits_init=normal_init(0.01),
            deltas_init=normal_init(0.001),
            dtype=self.dtype,
            name="head",
        )
        scores, moves = head(jax.vmap(cut)(x, rois), train=train)
        found |= {"roi_logits": scores, "roi_deltas": moves}
        if not train:
            finish = partial(
                postprocess_detections,
                score_thresh=self.score,
                nms_thresh=self.nms,
                detections_per_img=self.detections,
                **self.coding,
            )
            found |= jax.vmap(finish)(scores, moves, rois, valid=valid, size=sizes)
        return outputs | found

    @property
    def coding(self) -> dict[str, Any]:
        """How boxes become deltas."""
        return dict(weights=tuple(1 / deviation for deviation in self.deviations), pixel_offset=1.0)

    def roi_targets(self, keys: jax.Array, targets: Targets) -> Outputs:
        """Keys [B] -> {rois [B, R, 4], labels, valid [B, R], targets [B, R, 4]}."""
        low, high = self.roi_iou
        of_one = partial(
            sample_rois,
            fg_iou_thresh=high,
            bg_iou_thresh=low,
            batch_size=self.box_batch_size_per_image,
            positive_fraction=self.box_positive_fraction,
            **self.coding,
        )
        boxes = {name: targets[name] for name in BOX_KEYS}
        return jax.vmap(of_one)(
            keys, targets["proposals"], targets["proposal_valid"], ground_truth=boxes
        )


def external_proposals(sizes: jax.Array, targets: Targets | None) -> tuple[jax.Array, jax.Array]:
    """`[B, 2], {proposals [B, P, 4], ...} or None -> [B, P, 4], [B, P]`: the picture if None.

    Source: a model is initialized, and counted, by an image alone.

    >>> external_proposals(jnp.array([[8, 9]]), None)[0].tolist()
    [[[0.0, 0.0, 8.0, 7.0]]]
    """
    if targets is not None and "proposals" in targets:
        return targets["proposals"], targets["proposal_valid"]
    ends = jnp.flip(sizes, 1).astype(jnp.float32) - 1
    whole = jnp.concatenate([jnp.zeros_like(ends), ends], 1)[:, None]
    return whole, jnp.ones(whole.shape[:2], bool)


CARD = dict(
    module=FastRCNN,
    task="detection",
    input=(600, 1000, 3),
    paper="Girshick 2015, Fast R-CNN",
    preprocessing=dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), sides=(600, 1000)),
    told=infer_num_classes,
)

VARIANTS = {  # fields of FastRCNN; parameters
    "fast_rcnn_vgg16": dict(  # 134,690,729
        backbone="vgg16",
        card=dict(
            reported="PASCAL VOC 2007 test: mAP 66.9 %, trained on 07+12 70.0 % (the authors)"
        ),
    ),
}
