"""The two stages of Faster R-CNN, composed of the RPN and RoI functions."""

from collections.abc import Callable, Sequence

import jax

from zoo.heads.roi import RoIConfig, detect, roi_targets
from zoo.heads.rpn import RPNConfig, propose, rpn_targets
from zoo.heads.targets import Targets, require_keys

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
