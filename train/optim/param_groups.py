"""Masks, learning rates and freezing by parameter path.

The path of a parameter excludes `params`, e.g. "stage1_0/reduce/conv/kernel". A pattern is a
regular expression that matches a whole path.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

Mask = Callable[[Any], Any]  # params -> tree of bool


def decay_mask(params: Any) -> Any:
    """Selects kernels and embeddings, but not biases and normalization layers, for penalties.

    The name decides instead of the rank: the bias of an attention layer and position embeddings
    have rank 2.

    Args:
        params: parameters.

    Returns:
        A tree of bool.

    >>> decay_mask({"conv": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0}})
    {'conv': {'bias': False, 'kernel': True}, 'norm': {'scale': False}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).split("/")[-1] in ("kernel", "embedding"), params
    )


def path_mask(*patterns: str) -> Mask:
    """Creates an optax mask that is True where one of the patterns matches.

    Args:
        patterns: patterns of paths.

    Returns:
        A function of parameters that returns a tree of bool.

    Raises:
        ValueError: when it is applied, if a pattern matches no parameter.

    >>> path_mask("stage1_.*")({"stage1_0": {"kernel": 1.0}, "head": {"kernel": 1.0}})
    {'head': {'kernel': False}, 'stage1_0': {'kernel': True}}
    """

    def mask(params):
        check_matches(patterns, params)
        return jax.tree_util.tree_map_with_path(
            lambda path, _: any(re.fullmatch(pattern, path_name(path)) for pattern in patterns),
            params,
        )

    return mask


def path_name(path: tuple) -> str:
    """Joins the keys of a path with slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_matches(patterns: Iterable[str], params: Any) -> None:
    # Parameters that an outer freeze hides count as matches, since rates may name frozen layers.
    """Raises ValueError if a pattern matches no parameter."""
    leaves = jax.tree_util.tree_leaves_with_path(
        params, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode)
    )
    names = [path_name(path) for path, _ in leaves]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            near = ", ".join(difflib.get_close_matches(pattern, names, n=3, cutoff=0.0))
            raise ValueError(
                f"path pattern {pattern!r}: expected to match a whole parameter path"
                f" (without 'params/' in front), matches none; nearest: {near}"
            )


def scale_by_path(scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Scales the updates of parameters by path.

    It follows the optimizer. The first matching pattern counts. Parameters without a match keep
    their update.

    Args:
        scales: factors by pattern.

    Returns:
        The optax transformation.

    Raises:
        ValueError: at initialization, if a pattern matches no path.

    >>> scale = scale_by_path({".*bias": 2.0})  # Caffe's rate for biases
    >>> w = {"kernel": 1.0, "bias": 1.0}
    >>> scale.update(w, scale.init(w))[0]
    {'bias': 2.0, 'kernel': 1.0}
    """

    def init(params):
        check_matches(scales, params)
        return optax.EmptyState()

    def scale(path, step):
        name = path_name(path)
        return step * next((scales[p] for p in scales if re.fullmatch(p, name)), 1.0)

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(init, update)


def layer_decay(groups: Sequence[str], *, decay: float) -> optax.GradientTransformation:
    """Decreases the learning rate from the head to the input.

    It follows the optimizer.

    Args:
        groups: patterns from the input to the head. The last is scaled by `decay`, the one before
            by decay^2, and so on. Other parameters, such as the head, keep the full rate.
        decay: factor for each group.

    Returns:
        The optax transformation.

    Source: Howard and Ruder 2018 (ULMFiT), section 3.2; Bao et al. 2022 (BEiT).

    >>> w = {"stem": 1.0, "block0": 1.0, "head": 1.0}
    >>> scale = layer_decay(["stem", "block.*"], decay=0.5)
    >>> scale.update(w, scale.init(w))[0]
    {'block0': 0.5, 'head': 1.0, 'stem': 0.25}
    """
    return scale_by_path({g: decay ** (len(groups) - i) for i, g in enumerate(groups)})


def count_layers(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Lists patterns of the parameters of each layer, from the input to the head.

    A layer is a stage if the model has several, else a block (ViT), or another part with a kernel,
    such as a stem or a transition. Parameters of the model itself, such as a class token, belong to
    the first layer. Separate normalization layers belong to none. Nothing is computed.

    Args:
        model: the model.
        shape: image shape [H, W, C].

    Returns:
        Patterns.

    >>> import zoo
    >>> count_layers(zoo.create_model("resnet18"), (64, 64, 3))
    ['stem/.*', 'stage1_.*', 'stage2_.*', 'stage3_.*', 'stage4_.*', 'head/.*']
    """
    called: dict[str, None] = {}

    def note(call, arguments, keywords, context):
        called.update(dict.fromkeys(context.module.path[:1]))
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    parts = {name: params[name] for name in called if name in params}
    leaves = {name: jax.tree_util.tree_leaves_with_path(part) for name, part in parts.items()}
    named = [n for n in leaves if any(path_name(p).endswith("kernel") for p, _ in leaves[n])]
    stages = {name.split("_")[0] for name in named if name.startswith("stage")}
    whole = stages if len(stages) > 1 else set()
    patterns = [
        f"{name.split('_')[0]}_.*" if name.split("_")[0] in whole else f"{name}/.*"
        for name in named
    ]
    first, *rest = dict.fromkeys(patterns)
    return ["|".join([first, *sorted(set(params) - set(parts))]), *rest]


def freeze_by_path(
    optimizer: optax.GradientTransformation, *patterns: str
) -> optax.GradientTransformation:
    """Applies an optimizer to all parameters but those that a pattern matches.

    Frozen parameters have no optimizer state and no weight decay, and do not count for clipping.

    Args:
        optimizer: the optax transformation.
        patterns: patterns of paths.

    Returns:
        The optax transformation.

    Raises:
        ValueError: at initialization, if a pattern matches no path.

    >>> w = {"stem": {"kernel": 1.0}, "head": {"kernel": 1.0}}
    >>> optimizer = freeze_by_path(optax.sgd(0.5), "stem/.*")
    >>> optimizer.update(w, optimizer.init(w), w)[0]
    {'head': {'kernel': -0.5}, 'stem': {'kernel': Array(0., ...)}}
    """
    frozen = path_mask(*patterns)

    def labels(params):
        return jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen(params))

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
