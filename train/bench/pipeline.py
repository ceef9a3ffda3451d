"""How fast examples come: decoded, cropped too, and as the whole stream to the device."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from PIL import Image, ImageOps

from train.bench.clock import time_once
from train.data import Crop, open_clips, open_source, train_batches
from train.data.batches import READER_THREADS
from train.data.classification.folder import ImageFolder
from train.data.image_files import IMAGE_FORMATS, convert_mode
from train.data.source import sample
from zoo.preprocess import Preprocessing

CLIPS = "clips:"  # before a source of open_clips
FRAMES = 32  # of a clip, every second one of the video's, as SlowFast has them


def measure_pipeline(spec: str, *, size: int, batch: int, batches: int) -> list[dict[str, Any]]:
    """A source's name, side in pixels -> rows {"model": ..., "what": ..., "images_per_second": ...}.

    Of photographs: "decoded" whole; "cropped", decoded (at a fraction of the size where the part
    allows it), a random part cut out and resized, as in training; and of any source "delivered":
    batches of them, read ahead, on the device. All three by as many threads as there are cores.
    Of "clips:folder:PATH" and the other sources of clips: see `measure_clips`.
    """
    if spec.startswith(CLIPS):
        return measure_clips(spec.removeprefix(CLIPS), size=size, batch=batch, batches=batches)
    source = open_source(spec, size=(size, size, 3), crop=Crop())["train"]
    batch = min(batch, len(source))
    rates = {}
    if isinstance(source, ImageFolder):
        photographs, count = source, batches * batch
        rates["decoded"] = threaded_rate(
            lambda n: decode(photographs.files[n % len(source)]), count
        )
        rates["cropped"] = threaded_rate(
            lambda n: photographs.draw(n % len(source), number=n, seed=0), count
        )
    rates["delivered"] = delivered_rate(source, batch=batch, batches=batches)
    return [
        {"model": source.name, "what": what, "batch": batch, "images_per_second": rate}
        for what, rate in rates.items()
    ]


def measure_clips(spec: str, *, size: int, batch: int, batches: int) -> list[dict[str, Any]]:
    """A source of clips -> the rates of clips, as "images_per_second": of 32 frames, as training sees them.

    "clips cut", random ones decoded, resized and cut by as many threads as there are cores, and "clips
    delivered": batches of them, read ahead, on the device.
    """
    seen = Preprocessing((0.5,) * 3, (0.5,) * 3, (size, size), frames=FRAMES, stride=2)
    sides = (size * 8 // 7, size * 10 // 7)
    if spec == "moving_digits":  # gray, drawn as small as they are
        seen, sides = seen._replace(mean=(0.5,), std=(0.5,), size=(32, 32)), None
    source = open_clips(spec, seen, sides=sides)["train"]
    batch, count = min(batch, len(source)), batches * min(batch, len(source))
    rates = {
        "clips cut": threaded_rate(
            lambda n: sample(source, n % len(source), number=n, seed=0), count
        ),
        "clips delivered": delivered_rate(source, batch=batch, batches=batches),
    }
    return [
        {"model": source.name, "what": what, "batch": batch, "images_per_second": rate}
        for what, rate in rates.items()
    ]


def decode(file: str) -> Image.Image:
    """A photograph of its own size, upright, RGB."""
    with Image.open(file, formats=list(IMAGE_FORMATS)) as image:
        return convert_mode(ImageOps.exif_transpose(image), mode="RGB")


def threaded_rate(work: Callable[[int], Any], count: int) -> float:
    """work(0), ..., work(count - 1) -> how many a second, by the threads that the stream has."""
    with ThreadPoolExecutor(READER_THREADS) as threads:
        return count / time_once(
            lambda: all(threads.map(lambda n: work(n) is not None, range(count)))
        )


def delivered_rate(source: Any, *, batch: int, batches: int) -> float:
    """A source -> examples a second on the device; the batches that start the threads excepted."""
    stream = train_batches(source, batch_size=batch, seed=0, start=0, stop=batches + 2)
    for _ in range(2):
        jax.block_until_ready(jax.device_put(next(stream)))
    began = time.perf_counter()
    for examples in stream:
        jax.block_until_ready(jax.device_put(examples))
    return batches * batch / (time.perf_counter() - began)
