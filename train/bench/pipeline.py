"""How fast examples come: read, decoded, cropped, stacked, and handed to the device."""

import time
from typing import Any

import jax

from train.data import open_source, train_batches


def measure_pipeline(spec: str, *, size: int, batch: int, batches: int) -> dict[str, Any]:
    """A source's name, side in pixels -> {"model": ..., "images_per_second": ...}, read ahead.

    The first batches, which start the threads, are not counted.
    """
    source = open_source(spec, size=(size, size, 3))["train"]
    batch = min(batch, len(source))
    stream = train_batches(source, batch_size=batch, seed=0, start=0, stop=batches + 2)
    for _ in range(2):
        jax.block_until_ready(jax.device_put(next(stream)))
    began = time.perf_counter()
    for delivered in stream:
        jax.block_until_ready(jax.device_put(delivered))
    rate = batches * batch / (time.perf_counter() - began)
    return {"model": source.name, "what": "data", "batch": batch, "images_per_second": rate}
