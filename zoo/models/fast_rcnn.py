"""Fast R-CNN: a detector that classifies given proposals."""

from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.heads.roi import (
    RoIConfig,
    detect,
    feature_scale,
    infer_num_classes,
    roi_targets,
)
from zoo.heads.targets import BOX_KEYS, Targets, image_sizes, require_keys
from zoo.heads.two_stage import prefixed_fields, single_map_head
from zoo.layers.backbone import configure_backbone, select_stages
from zoo.preprocess import IMAGENET_NORM


@final
class FastRCNN(nn.Module):
    """Fast R-CNN.

    RoI pooling from the last stage of the backbone, two dense layers, and for each class a score
    and a box. Boxes include their last pixel (`pixel_offset` 1). The fields that begin with `box_`
    are those of `zoo.heads.roi.RoIConfig`.

    Attributes:
        backbone: any backbone with stages; it gets `dtype`, `axis_name` and `scan`.
        num_classes: number of classes K without the background; 0 leaves the stages alone.
        hidden: units of the dense layers.
        dropout: dropout rate of the dense layers.
        roi_pool_size: cells of RoI pooling along each side.
        deviations: standard deviations by which box targets are divided.

    Args:
        image: padded images [B, H, W, C].
        targets: `proposals` [B, P, 4] and `proposal_valid` [B, P]; without them the image itself
            is the only proposal. In evaluation optionally `size` [B, 2]; in training also `boxes`
            [B, N, 4], `labels` and `box_valid` [B, N], which are added to the proposals.
        train: sample for the losses (random stream "sample") instead of detecting.

    Returns:
        `stage1` ... `stageN`, and in evaluation `boxes` [B, M, 4], `scores`, `labels`, `valid`
        [B, M], `proposals`, `proposal_valid`, `roi_logits` [B, P, K + 1], background first, and
        `roi_deltas` [B, P, K + 1, 4]; in training the samples of `zoo.losses.rcnn_losses`.

    Source: Girshick 2015, Fast R-CNN, sections 2 and 3; the authors' code, which measures the
    deviations per class: about these, as py-faster-rcnn sets them.

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
    roi_pool_size: int = 7
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_min_bg_iou: float = 0.1
    box_batch_size_per_image: int = 64
    box_positive_fraction: float = 0.25
    deviations: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.3
    box_detections_per_img: int = 100
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        # poolings round up, as in Caffe
        fields = {"ceil": True} if hasattr(self.backbone, "ceil") else {}
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **fields)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, targets: Targets | None = None, *, train: bool = False
    ) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        x = outputs[f"stage{len(outputs)}"]
        sizes = image_sizes(image, targets)
        config = self.roi_config()
        rois, valid = external_proposals(sizes, targets)
        results = {"proposals": rois, "proposal_valid": valid}
        if train:
            keys = jax.random.split(self.make_rng("sample"), len(image))
            given = require_keys(targets, keys=(*BOX_KEYS, "proposals", "proposal_valid"))
            boxes = {name: given[name] for name in BOX_KEYS}
            samples = roi_targets(keys, rois, valid, targets=boxes, config=config)
            rois = samples.pop("rois")
            results = {f"roi_{name}": values for name, values in samples.items()}
        scale = feature_scale(image.shape[1], x.shape[1])
        logits, deltas = single_map_head(self, x, scale, train=train)(rois)
        results |= {"roi_logits": logits, "roi_deltas": deltas}
        if not train:
            results |= detect(logits, deltas, rois, valid=valid, sizes=sizes, config=config)
        return outputs | results

    def roi_config(self) -> RoIConfig:
        """Returns the options of the RoI stage."""
        return RoIConfig(
            **prefixed_fields(self, "box_"),
            weights=tuple(1 / deviation for deviation in self.deviations),
            pixel_offset=1.0,
        )


def external_proposals(sizes: jax.Array, targets: Targets | None) -> tuple[jax.Array, jax.Array]:
    """Returns the given proposals, or the complete image as the only one.

    Without proposals the model can still be initialized and profiled from an image alone.

    Args:
        sizes: height and width of each image [B, 2].
        targets: may hold `proposals` [B, P, 4] and `proposal_valid` [B, P].

    Returns:
        Proposals [B, P, 4] and `valid` [B, P].

    >>> external_proposals(jnp.array([[8, 9]]), None)[0].tolist()
    [[[0.0, 0.0, 8.0, 7.0]]]
    """
    if targets is not None and "proposals" in targets:
        return targets["proposals"], targets["proposal_valid"]
    ends = jnp.flip(sizes, 1).astype(jnp.float32) - 1
    boxes = jnp.concatenate([jnp.zeros_like(ends), ends], 1)[:, None]
    return boxes, jnp.ones(boxes.shape[:2], bool)


CARD = dict(
    module=FastRCNN,
    task="detection",
    input=(600, 1000, 3),
    paper="Girshick 2015, Fast R-CNN",
    preprocessing=dict(**IMAGENET_NORM, sides=(600, 1000)),
    infer_fields=infer_num_classes,
)

VARIANTS = {  # fields of FastRCNN; parameters
    "fast_rcnn_vgg16": dict(  # 134,690,729
        backbone="vgg16",
        card=dict(
            reported="PASCAL VOC 2007 test: mAP 66.9 %, trained on 07+12 70.0 % (the authors)"
        ),
    ),
}
