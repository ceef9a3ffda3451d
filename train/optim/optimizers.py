"""Optimizers and gradient transformations that optax lacks.

A recipe composes clipping, penalties, an optimizer, learning rates by layer, and freezing:

    param_groups.freeze_by_path(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            create_optimizer("adamw", schedule, weight_decay=0.05),
            param_groups.layer_decay(["stem/.*", "stage1_.*", "stage2_.*"], decay=0.75),
        ),
        "stem/.*",
    )

optax clips by norm (`clip_by_global_norm`), by value (`clip`) and by parameter norm
(`adaptive_grad_clip`). The paper of the latter excludes the head:
`optax.masked(..., param_groups.path_mask("(?!head/).*"))`.

Gradients are already averaged over the devices. They may be bfloat16 with float32 parameters.
"""

import difflib
import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from train.optim import param_groups

Rate = float | optax.Schedule


def add_penalty(
    *, l1: float = 0.0, l2: float = 0.0, mask: param_groups.Mask = param_groups.decay_mask
) -> optax.GradientTransformation:
    """Adds l1 * sign(w) + l2 * w to the gradient: L1, coupled L2 or the elastic net.

    It is the gradient of l1 * |w| + l2 / 2 * |w|^2 and precedes the optimizer.

    Args:
        l1: factor of the L1 penalty.
        l2: factor of the L2 penalty.
        mask: parameters with a penalty.

    Returns:
        The optax transformation.

    Source: Zou and Hastie 2005, equation 3, whose lambda_2 is l2 / 2.

    >>> w, g, net = {"kernel": 2.0}, {"kernel": 1.0}, add_penalty(l1=0.1, l2=0.2)
    >>> print(f"{net.update(g, net.init(w), w)[0]['kernel']:.2f}")
    1.50
    """

    def add(g, w):
        return g + (l1 * jnp.sign(w) + l2 * w)

    return optax.masked(optax.stateless_with_tree_map(add), mask)


def decoupled_l2(
    weight: float, learning_rate: Rate, *, mask: param_groups.Mask = param_groups.decay_mask
) -> optax.GradientTransformation:
    """Subtracts learning rate * weight * w from the parameters: decoupled weight decay.

    It follows the optimizer.

    Args:
        weight: weight decay.
        learning_rate: rate or schedule.
        mask: parameters with weight decay.

    Returns:
        The optax transformation.

    Source: Loshchilov and Hutter 2019, algorithm 2; their decay is rate * weight, as in torch.

    >>> w, step = {"kernel": 2.0}, {"kernel": -0.5}
    >>> decay = decoupled_l2(0.1, 0.5)
    >>> print(f"{decay.update(step, decay.init(w), w)[0]['kernel']:.2f}")
    -0.60
    """
    rate = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
    return optax.add_decayed_weights(lambda count: -weight * rate(count), mask)


def momentum(
    learning_rate: Rate,
    *,
    momentum: float = 0.9,
    form: Literal["outside", "inside", "average"] = "outside",
) -> optax.GradientTransformation:
    """Gradient descent with momentum, in the three published forms of the velocity v.

    "outside" (torch, optax):  v = momentum * v + g;                   w = w - rate * v
    "inside" (Caffe):          v = momentum * v + rate * g;            w = w - v
    "average":                 v = momentum * v + (1 - momentum) * g;  w = w - rate * v

    The first two are equal while the rate is constant. When it decreases, the velocity of "inside"
    still contains the old rate. "average" equals "outside" with (1 - momentum) times the rate.

    Args:
        learning_rate: rate or schedule.
        momentum: factor of the velocity.
        form: form of the velocity.

    Returns:
        The optax transformation.

    Raises:
        ValueError: if the form is unknown.

    Source: "inside" is Sutskever et al. 2013, equations 1 and 2.

    >>> optimizer = momentum(0.1, form="inside")
    >>> step, _ = optimizer.update({"w": 1.0}, optimizer.init({"w": 2.0}))
    >>> print(f"{step['w']:.2f}")
    -0.10
    """
    rate = optax.scale_by_learning_rate(learning_rate)
    if form == "outside":
        return optax.chain(optax.trace(momentum), rate)
    if form == "inside":
        return optax.chain(rate, optax.trace(momentum))
    if form == "average":
        return optax.chain(optax.ema(momentum, debias=False), rate)
    raise ValueError(f"form of momentum: expected outside, inside or average, got {form!r}")


def lars(
    learning_rate: Rate,
    *,
    momentum: float = 0.9,
    trust: float = 0.001,
    weight_decay: float = 0.0,
    mask: param_groups.Mask = param_groups.decay_mask,
) -> optax.GradientTransformation:
    """LARS: momentum ("inside") with a learning rate for each layer.

    g' = trust * |w| / (|g| + weight_decay * |w|) * (g + weight_decay * w). The ratio is 1 if a norm
    is zero. Where `mask` is False, the ratio is 1 and there is no weight decay.

    Args:
        learning_rate: rate or schedule.
        momentum: factor of the velocity.
        trust: trust coefficient.
        weight_decay: weight decay.
        mask: parameters with the ratio and weight decay.

    Returns:
        The optax transformation.

    Source: You, Gitman and Ginsburg 2017, algorithm 1. `optax.lars` divides by |g + weight_decay *
    w| in its place.

    >>> w, optimizer = {"kernel": jnp.array([3.0, 4.0])}, lars(0.1)
    >>> optimizer.update({"kernel": jnp.array([1.0, 0.0])}, optimizer.init(w), w)[0]["kernel"][0]
    Array(-0.0005, dtype=float32)
    """

    def scale(g, w):
        g_norm, w_norm = jnp.linalg.norm(jnp.ravel(g)), jnp.linalg.norm(jnp.ravel(w))
        ratio = trust * w_norm / (g_norm + weight_decay * w_norm)
        return jnp.where((g_norm > 0) & (w_norm > 0), ratio, 1.0) * (g + weight_decay * w)

    return optax.chain(
        optax.masked(optax.stateless_with_tree_map(scale), mask),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum),
    )


def muon(
    learning_rate: Rate,
    *,
    weight_decay: float = 0.0,
    mask: param_groups.Mask = param_groups.decay_mask,
) -> optax.GradientTransformation:
    """Muon (`optax.contrib.muon`) for matrices and convolutions, Adam with Nesterov for the rest.

    The kernel of a convolution is a matrix [height * width * C_in, C_out]. Adam updates depthwise
    and other kernels with one input channel, kernels of rank 3, biases, normalization layers and
    embeddings. Muon also updates the matrix of a classifier. One learning rate serves both, since
    the step of Muon is scaled to that of Adam.

    Args:
        learning_rate: rate or schedule.
        weight_decay: weight decay.
        mask: parameters with weight decay.

    Returns:
        The optax transformation.

    Source: Jordan et al. 2024 (Newton-Schulz, convolutions); Liu et al. 2025, equation 4 (scale).

    >>> w, optimizer = {"kernel": jnp.eye(2)}, muon(0.1)
    >>> print(f"{optimizer.update(w, optimizer.init(w), w)[0]['kernel'][0, 0]:.2f}")
    -0.03
    """

    def matrices(params):
        def dimensions(path, w):
            dense, convolution = w.ndim == 2, w.ndim in (4, 5) and w.shape[-2] > 1
            if param_groups.path_name(path).split("/")[-1] != "kernel" or not (
                dense or convolution
            ):
                return None
            return optax.contrib.MuonDimensionNumbers(tuple(range(w.ndim - 1)), w.ndim - 1)

        return jax.tree_util.tree_map_with_path(dimensions, params)

    return optax.chain(
        optax.contrib.muon(
            learning_rate, muon_weight_dimension_numbers=matrices, consistent_rms=0.2
        ),
        decoupled_l2(weight_decay, learning_rate, mask=mask),
    )


def _coupled(optimizer: Callable[[Rate], optax.GradientTransformation]):
    def with_l2(learning_rate, *, weight_decay, mask):
        return optax.chain(add_penalty(l2=weight_decay, mask=mask), optimizer(learning_rate))

    return with_l2


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _coupled(optax.sgd),
    "momentum": _coupled(momentum),
    "momentum_inside": _coupled(partial(momentum, form="inside")),
    "momentum_average": _coupled(partial(momentum, form="average")),
    "nesterov": _coupled(partial(optax.sgd, momentum=0.9, nesterov=True)),
    "adagrad": _coupled(optax.adagrad),
    "rmsprop": _coupled(optax.rmsprop),
    "adam": _coupled(optax.adam),
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "lars": lars,
    "lion": optax.lion,
    "muon": muon,
}


def create_optimizer(
    name: str,
    learning_rate: Rate,
    *,
    weight_decay: float = 0.0,
    mask: param_groups.Mask = param_groups.decay_mask,
) -> optax.GradientTransformation:
    """Creates an optimizer by its name in OPTIMIZERS.

    Other constants are the defaults of optax or of this file. Weight decay is decoupled (learning
    rate * weight_decay * w) for adamw, lamb, lion and muon. lars includes it in its ratio. For the
    others it is an L2 penalty of the gradient.

    Args:
        name: name of the optimizer.
        learning_rate: rate or schedule.
        weight_decay: weight decay.
        mask: parameters with weight decay.

    Returns:
        The optax transformation.

    Raises:
        ValueError: if the name is unknown, or a number is negative or not finite.

    >>> create_optimizer("adma", 0.1)
    Traceback (most recent call last):
    ValueError: optimizer: expected a known name, got 'adma'; nearest: adam, ...
    """
    for word, number in (("learning rate", learning_rate), ("weight decay", weight_decay)):
        if not callable(number) and not 0 <= number < math.inf:
            raise ValueError(f"{word}: expected a finite number of at least 0, got {number}")
    if name not in OPTIMIZERS:
        near = ", ".join(difflib.get_close_matches(name, OPTIMIZERS, n=3, cutoff=0.0))
        raise ValueError(f"optimizer: expected a known name, got {name!r}; nearest: {near}")
    return OPTIMIZERS[name](learning_rate, weight_decay=weight_decay, mask=mask)
