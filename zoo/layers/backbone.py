"""What an assembly does with the module that it stands on."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

SHARED_FIELDS = ("dtype", "axis_name", "remat", "scan")  # of an assembly and its backbone


def configure_backbone(backbone: nn.Module, module: nn.Module, **fields: Any) -> nn.Module:
    """`[B, H, W, C] -> {stage1 ...}`: the backbone with these fields, and the assembly's way to compute.

    That is its `dtype`, `axis_name`, `remat` and `scan`, where the backbone has them. ValueError
    where it lacks one of `fields`.

    Source: flax.linen.Module.clone.

    >>> from zoo.layers.conv_norm import ConvNorm
    >>> import jax.numpy as jnp
    >>> under = configure_backbone(ConvNorm(8), ConvNorm(4, dtype=jnp.bfloat16), kernel=1)
    >>> under.width, under.kernel, under.dtype.__name__
    (8, 1, 'bfloat16')
    """
    for field in fields:
        if not hasattr(backbone, field):
            raise ValueError(
                f"a {type(backbone).__name__} has no field {field}, which a "
                f"{type(module).__name__} sets on its backbone"
            )
    both = [field for field in SHARED_FIELDS if hasattr(module, field) and hasattr(backbone, field)]
    fields |= {field: getattr(module, field) for field in both}
    changed = {key: value for key, value in fields.items() if getattr(backbone, key) != value}
    # a backbone that is in use already keeps its variables, which a clone would not
    return backbone.clone(**changed) if changed else backbone


def select_stages(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """`{stage1 [B, h, w, D], ..., pooled [B, D]} -> {stage1, ..., stageN}`, in this order.

    Source: the contract of the zoo's backbones.

    >>> list(select_stages({"pooled": 0, "stage2": 2, "stage1": 1}))
    ['stage1', 'stage2']
    """
    return {name: outputs[name] for name in sorted(outputs) if name.startswith("stage")}
