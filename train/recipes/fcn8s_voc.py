"""FCN-8s on Pascal VOC by the paper's three stages, or at once."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import zoo
from train import loop, parallel
from train.data import evaluation_split, open_masks
from train.optim import optimizers, param_groups
from train.run import Run, plan_steps
from train.tasks.segmentation import segmentation
from zoo.models.fcn import convert_classifier

SIZE = (500, 500, 3)  # no image of VOC is larger; what is missing is ignored
PIXELS = 500 * 375  # of most images: the authors' loss is a sum over them, ours a mean
STAGES = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16")


def script(
    *,
    workdir: Path,
    layout: parallel.Layout,
    source: str = "voc:VOCdevkit/VOC2012",
    weights: str | None = "torchvision://IMAGENET1K_V1",
    single_stage: bool = False,
    learning_rate: float = 1e-10 * PIXELS,
    weight_decay: float = 5e-4 / PIXELS,
    momentum: float = 0.99,
    batch_size: int = 1,
    epochs: int = 60,
    seed: int = 0,
) -> None:
    """FCN-8s on Pascal VOC: 32 pixels, then 16, then 8, each from the one before.

    WORKDIR/fcn32s_vgg16, fcn16s_vgg16 and fcn8s_vgg16 hold a training each, `epochs` of it; with
    --at-once WORKDIR/fcn8s_atonce the only one, of three times as many.

    Command: python -m train fcn8s_voc --source voc:VOCdevkit/VOC2012
    Data: Pascal VOC's segmentation, 21 classes; weights are a classifier's, VGG-16's.
    Source: Long et al. 2015, section 4.3, and the authors' solver.prototxt: rates of 1e-10, 1e-12
    and 1e-14 on the sum over pixels (1e-10 at once), momentum 0.99 with one image a step, 100,000
    steps a stage (68 epochs of VOC 2012's 1,464 images), biases at twice the rate, without decay.
    Their decay on a sum is so much less on a mean.
    Paper: mean IoU on seg11valid 63.6 (32s), 65.0 (16s), 65.5 (8s), 65.4 (at once).
    Ours: not run here, needs VOC and a GPU.
    """
    data = open_masks(source, size=SIZE, seed=seed)
    names, rounds = (("fcn8s_atonce",), 3 * epochs) if single_stage else (STAGES, epochs)
    classifier = zoo.load_model("vgg16", weights)[1] if weights else None
    coarser: Any = None
    for stage, name in enumerate(names):
        rate = learning_rate / 100**stage
        run = stage_run(
            name,
            data,
            optimizer=optax.chain(
                optax.add_decayed_weights(weight_decay, mask=param_groups.decay_mask),
                optimizers.momentum(rate, momentum=momentum, form="inside"),
                param_groups.scale_by_path({".*/bias": 2.0}),
            ),
            epochs=rounds,
            batch_size=batch_size,
            seed=seed,
        )
        run = run._replace(variables=load_start_weights(run.model, classifier, coarser, seed=seed))
        knobs = {"learning_rate": rate, "weights": weights, "epochs": rounds}
        here, recipe = workdir / name, Path(__file__).stem
        if not loop.fit(run, here, layout=layout, recipe=recipe, knobs=knobs):
            return  # interrupted
        coarser = zoo.load_model(name, here)[1]


def stage_run(name: str, data: Mapping[str, Any], **knobs: Any) -> Run:
    """The training of one net, from fresh variables."""
    train = data["train"]
    plan_steps(train, batch_size=knobs["batch_size"], epochs=knobs["epochs"])
    preprocessing = zoo.model_card("vgg16").preprocessing._replace(size=SIZE[:2], crop=1.0)
    return Run(
        model=zoo.create_model(name, num_classes=len(train.classes)),
        task=segmentation(
            preprocessing=preprocessing, classes=train.classes, palette=train.palette
        ),
        train=train,
        evaluate=evaluation_split(data),
        name=name,
        preprocessing=preprocessing,
        **knobs,
    )


def load_start_weights(model: Any, classifier: Any, coarser: Any, *, seed: int) -> dict[str, Any]:
    """Fresh variables, and over them the coarser net's, or the classifier's as convolutions."""
    image = jnp.zeros((1, *SIZE))
    fresh = jax.jit(partial(model.init, train=False))(jax.random.key(seed), image)
    if coarser is not None:
        return {"params": {**fresh["params"], **coarser["params"]}}
    return fresh if classifier is None else convert_classifier(fresh, classifier)
