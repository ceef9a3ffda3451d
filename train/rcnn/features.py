"""What the CNN says of warped regions."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from train.data import eval_batches
from train.rcnn.regions import WarpedRegions
from zoo.ops.pooling import max_pool
from zoo.preprocess import Preprocessing, preprocess

MAX_FEATURES = 7  # side of a last map that is not pooled


def select_features(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """A classifier's outputs -> {"code" [B, D], "map" [B, M], "logits" [B, K + 1]}.

    The code, for SVMs, is fc7 where there is one, else what is pooled; the map, for boxes, is the last
    stage's with its places, after a pooling of 3 x 3 by strides of 2 where it is wider than 7:
    AlexNet's pool5.
    """
    last = outputs[max(name for name in outputs if name.startswith("stage"))]
    if max(last.shape[1:3]) > MAX_FEATURES:
        last = max_pool(last, (3, 3), (2, 2), "VALID")
    code = outputs["fc7"] if "fc7" in outputs else outputs["pooled"]
    return {
        "code": code,
        "map": last.reshape(len(last), -1),
        "logits": outputs["logits"],
    }


def extract_features(
    model: nn.Module,
    variables: Any,
    source: WarpedRegions,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Regions, in their order -> batches of `select_features`, float32, without padding."""
    apply = jax.jit(partial(forward, model, preprocessing=preprocessing))
    for batch in eval_batches(source, batch_size=batch_size):
        found = apply(variables, batch["image"])
        yield {name: np.asarray(value)[batch["valid"]] for name, value in found.items()}


def forward(
    model: nn.Module, variables: Any, image: jax.Array, *, preprocessing: Preprocessing
) -> dict[str, jax.Array]:
    outputs: Any = model.apply(variables, preprocess(image, preprocessing))
    return select_features(outputs)
