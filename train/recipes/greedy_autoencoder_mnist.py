"""The deep auto-encoder on MNIST, its layers trained one after the other, then all together."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import optax

import zoo
from train import loop, parallel
from train.data import open_source, split_source
from train.data.source import Arrays, Source
from train.optim import schedules
from train.recipes.autoencoder_mnist import VALIDATION_FRACTION
from train.run import Run, plan_steps
from train.tasks.reconstruction import reconstruction, to_unit_range
from zoo.models.autoencoder import stack_autoencoders
from zoo.preprocess import Preprocessing


def script(
    *,
    workdir: Path,
    layout: parallel.Layout,
    source: str = "tfds:mnist",
    widths: tuple[int, ...] = (1000, 500, 250, 30),
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    pretrain_epochs: int = 3,
    epochs: int = 15,
    seed: int = 0,
) -> None:
    """The same auto-encoder with greedy layer-wise pre-training.

    WORKDIR/level1, level2 ... hold one auto-encoder of one layer each, trained on the codes of the
    one before; WORKDIR/whole is the deep one that starts from them.

    Command: python -m train greedy_autoencoder_mnist --source idx:FOLDER
    Source: Bengio et al. 2007, section 4.
    Ours: squared error 4.76 per test image, seed 0, 9 minutes on 2 busy cores.
    """
    data = open_source(source, seed=seed)
    train, val = split_source(data["train"], VALIDATION_FRACTION, seed=0)
    levels: Mapping[str, Source] = {"train": train, "val": val, "test": data["test"]}

    def fit(name: str, epochs: int, sources: Mapping[str, Source], **fields) -> bool:
        """One training in WORKDIR/name; False where it was interrupted."""
        *size, channels = sources["train"][0]["image"].shape
        _, steps = plan_steps(sources["train"], batch_size=batch_size, epochs=epochs)
        run = Run(
            model=zoo.create_model("autoencoder", **fields.pop("model")),
            task=reconstruction(),
            train=sources["train"],
            evaluate={"val": sources["val"], "test": sources["test"]},
            optimizer=optax.adam(schedules.cosine(learning_rate, steps=steps)),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            name="autoencoder",
            preprocessing=Preprocessing((0.0,) * channels, (1.0,) * channels, size=tuple(size)),
            **fields,
        )
        knobs = {"widths": list(widths), "learning_rate": learning_rate, "epochs": epochs}
        return bool(
            loop.fit(run, workdir / name, layout=layout, recipe=Path(__file__).stem, knobs=knobs)
        )

    parts: list[dict] = []
    codes = levels
    for level, width in enumerate(widths, 1):
        code_act = "sigmoid" if level < len(widths) else "linear"
        fields = {"widths": (width,), "code_act": code_act}
        if not fit(f"level{level}", pretrain_epochs, codes, model=fields):
            return
        model, variables = zoo.load_model("autoencoder", workdir / f"level{level}")
        parts.append(variables["params"])
        codes = {name: encode_source(model, variables, source) for name, source in codes.items()}
    start = {"params": stack_autoencoders(parts)}
    fit("whole", epochs, levels, model={"widths": widths}, variables=start)


def encode_source(model, variables, source: Source) -> Arrays:
    """A source of images [H, W, C] -> their codes as images [1, 1, D], float32."""
    code = jax.jit(lambda image: model.apply(variables, to_unit_range(image))["code"])
    examples = [source[i] for i in range(len(source))]
    images = np.stack([example["image"] for example in examples])
    codes = [code(part) for part in np.array_split(images, -(-len(images) // 1000))]
    labels = np.stack([example["label"] for example in examples])
    return Arrays(np.concatenate(codes)[:, None, None], labels, source.name, source.classes)
