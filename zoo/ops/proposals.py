"""stub"""

import jax, jax.numpy as jnp
from zoo.ops.boxes import decode, clip
from zoo.ops.nms import nms


def proposals(logits, deltas, anchors, *, size, before, after, threshold, smallest, plus=0.0):
    top, order = jax.lax.top_k(logits, before)
    boxes = clip(decode(deltas[order], anchors[order], plus=plus), size, plus=plus)
    ok = ((boxes[:, 2:] - boxes[:, :2] + plus) >= smallest).all(1)
    idx, valid = nms(boxes, top, ok, threshold=threshold, count=after, plus=plus)
    return boxes[idx], top[idx], valid
