"""Helpers for models that are built on a backbone."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

SHARED_FIELDS = ("dtype", "axis_name", "remat", "scan")  # copied from a model to its backbone


def configure_backbone(backbone: nn.Module, module: nn.Module, **fields: Any) -> nn.Module:
    """Sets fields on a backbone, and copies the shared fields of the model that contains it.

    The shared fields are `dtype`, `axis_name`, `remat` and `scan`, where the backbone has them.

    Args:
        backbone: the backbone.
        module: the model that contains it.
        **fields: values to set on the backbone.

    Returns:
        A clone of the backbone, or the backbone itself if nothing changes.

    Raises:
        ValueError: if the backbone lacks one of `fields`.

    >>> from zoo.layers.conv_norm import ConvNorm
    >>> import jax.numpy as jnp
    >>> under = configure_backbone(ConvNorm(8), ConvNorm(4, dtype=jnp.bfloat16), kernel=1)
    >>> under.width, under.kernel, under.dtype.__name__
    (8, 1, 'bfloat16')
    """
    for field in fields:
        if not hasattr(backbone, field):
            raise ValueError(
                f"expected a backbone with the field {field}, which {type(module).__name__} sets, "
                f"got {type(backbone).__name__}"
            )
    shared = [
        field for field in SHARED_FIELDS if hasattr(module, field) and hasattr(backbone, field)
    ]
    fields |= {field: getattr(module, field) for field in shared}
    changed = {key: value for key, value in fields.items() if getattr(backbone, key) != value}
    # an unchanged backbone is not cloned, because a clone would lose its bound variables
    return backbone.clone(**changed) if changed else backbone


def select_stages(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Selects the stage outputs of a backbone in order.

    Args:
        outputs: outputs of a backbone: `stage1` ... `stageN` [B, h, w, C], `pooled` [B, C], ...

    Returns:
        `stage1` ... `stageN` [B, h, w, C].

    >>> list(select_stages({"pooled": 0, "stage2": 2, "stage1": 1}))
    ['stage1', 'stage2']
    """
    return {name: outputs[name] for name in sorted(outputs) if name.startswith("stage")}
