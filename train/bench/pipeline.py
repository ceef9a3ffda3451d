"""How fast examples come: decoded, cropped too, and as the whole stream to the device."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from PIL import Image, ImageOps

from train.bench.clock import once
from train.data import Crop, open_source, train_batches
from train.data.batches import THREADS
from train.data.folder import Photographs
from train.data.photographs import FORMATS, flat


def measure_pipeline(spec: str, *, size: int, batch: int, batches: int) -> list[dict[str, Any]]:
    """A source's name, side in pixels -> rows {"model": ..., "what": ..., "images_per_second": ...}.

    Of photographs: "decoded" whole; "cropped", decoded (at a fraction of the size where the part
    allows it), a random part cut out and resized, as in training; and of any source "delivered":
    batches of them, read ahead, on the device. All three by as many threads as there are cores.
    """
    source = open_source(spec, size=(size, size, 3), crop=Crop())["train"]
    batch = min(batch, len(source))
    rates = {}
    if isinstance(source, Photographs):
        photographs, count = source, batches * batch
        rates["decoded"] = by_threads(lambda n: decode(photographs.files[n % len(source)]), count)
        rates["cropped"] = by_threads(
            lambda n: photographs.draw(n % len(source), number=n, seed=0), count
        )
    rates["delivered"] = delivered(source, batch=batch, batches=batches)
    return [
        {"model": source.name, "what": what, "batch": batch, "images_per_second": rate}
        for what, rate in rates.items()
    ]


def decode(file: str) -> Image.Image:
    """A photograph of its own size, upright, RGB."""
    with Image.open(file, formats=list(FORMATS)) as image:
        return flat(ImageOps.exif_transpose(image), mode="RGB")


def by_threads(work: Callable[[int], Any], count: int) -> float:
    """work(0), ..., work(count - 1) -> how many a second, by the threads that the stream has."""
    with ThreadPoolExecutor(THREADS) as threads:
        return count / once(lambda: all(threads.map(lambda n: work(n) is not None, range(count))))


def delivered(source: Any, *, batch: int, batches: int) -> float:
    """A source -> examples a second on the device; the batches that start the threads excepted."""
    stream = train_batches(source, batch_size=batch, seed=0, start=0, stop=batches + 2)
    for _ in range(2):
        jax.block_until_ready(jax.device_put(next(stream)))
    began = time.perf_counter()
    for examples in stream:
        jax.block_until_ready(jax.device_put(examples))
    return batches * batch / (time.perf_counter() - began)
