"""The two stages of Faster R-CNN, composed of the RPN and RoI functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from zoo.heads.roi import BoxHead, RoIConfig, detect, roi_targets
from zoo.heads.rpn import RPNConfig, propose, rpn_targets
from zoo.heads.targets import Targets, require_keys
from zoo.ops.roi import roi_pool

RoIHead = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # rois -> logits, deltas


def propose_and_classify(
    logits: jax.Array,
    deltas: jax.Array,
    anchors: Sequence[jax.Array],
    *,
    head: RoIHead,
    sizes: jax.Array,
    rpn: RPNConfig,
    box: RoIConfig,
    targets: Targets | None,
    key: jax.Array | None,
) -> dict[str, jax.Array]:
    """Selects proposals and classifies them; both stages are trained at once.

    No gradient flows through the proposals.

    Args:
        logits: objectness logits [B, N].
        deltas: box offsets [B, N, 4].
        anchors: anchors of each level [[n, 4], ...], N together.
        head: function from regions [B, R, 4] to logits [B, R, K + 1] and offsets
            [B, R, K + 1, 4].
        sizes: height and width of each image [B, 2].
        rpn: options of the region proposal network.
        box: options of the RoI stage.
        targets: ground truth; required in training.
        key: random key of the samples; None in evaluation.

    Returns:
        In training the samples that `zoo.losses.rcnn_losses` compares: `rpn_logits`, `rpn_deltas`,
        `rpn_positive`, `rpn_targets`, `rpn_valid`, `roi_logits`, `roi_deltas`, `roi_labels`,
        `roi_targets` and `roi_valid`. In evaluation `boxes`, `scores`, `labels` and `valid`, and
        the raw `rpn_logits`, `rpn_deltas`, `proposals`, `proposal_valid`, `roi_logits` and
        `roi_deltas`.

    Source: Ren et al. 2015, Faster R-CNN, approximate joint training, as in py-faster-rcnn's
    faster_rcnn_end2end.
    """
    rois, valid = propose(logits, deltas, anchors, sizes=sizes, config=rpn, train=key is not None)
    if key is None:
        roi_logits, roi_deltas = head(rois)
        detections = detect(roi_logits, roi_deltas, rois, valid=valid, sizes=sizes, config=box)
        return detections | {
            "rpn_logits": logits,
            "rpn_deltas": deltas,
            "proposals": rois,
            "proposal_valid": valid,
            "roi_logits": roi_logits,
            "roi_deltas": roi_deltas,
        }
    keys = jax.random.split(key, (2, len(logits)))
    boxes = require_keys(targets)
    outputs = rpn_targets(
        keys[0], logits, deltas, anchors=anchors, targets=boxes, sizes=sizes, config=rpn
    )
    samples = roi_targets(keys[1], rois, valid, targets=boxes, config=box)
    roi_logits, roi_deltas = head(samples.pop("rois"))
    outputs |= {f"roi_{name}": values for name, values in samples.items()}
    return outputs | {"roi_logits": roi_logits, "roi_deltas": roi_deltas}


def single_map_head(module: Any, x: jax.Array, scale: float, *, train: bool) -> RoIHead:
    """Creates the RoI head of Fast R-CNN as the submodule "head" of a detector.

    It pools regions from one feature map and applies two dense layers.

    Args:
        module: a detector with the fields `num_classes`, `hidden`, `dropout`, `roi_pool_size` and
            `dtype`, inside its compact method.
        x: feature map [B, h, w, C].
        scale: size of the map divided by that of the image.
        train: apply dropout.

    Returns:
        A function from regions [B, R, 4] to logits [B, R, K + 1] and offsets [B, R, K + 1, 4].

    Source: Girshick 2015, Fast R-CNN, section 2; the initializers of the authors' code.
    """
    normal = nn.initializers.normal
    size = (module.roi_pool_size, module.roi_pool_size)
    pool = partial(roi_pool, output_size=size, spatial_scale=scale)
    head = BoxHead(
        module.num_classes,
        module.hidden,
        module.dropout,
        kernel_init=normal(0.005),
        logits_init=normal(0.01),
        deltas_init=normal(0.001),
        dtype=module.dtype,
        name="head",
    )
    return lambda rois: head(jax.vmap(pool)(x, rois), train=train)


def prefixed_fields(module: nn.Module, prefix: str) -> dict[str, Any]:
    """Returns the fields of a module that begin with a prefix, by their names without it.

    Args:
        module: a module.
        prefix: the prefix.

    Returns:
        Values by name.

    >>> prefixed_fields(nn.Conv(8, (3, 3), input_dilation=2), "input_")
    {'dilation': 2}
    """
    names = [name for name in type(module).__dataclass_fields__ if name.startswith(prefix)]
    return {name.removeprefix(prefix): getattr(module, name) for name in names}
