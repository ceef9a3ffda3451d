"""Values for every tensor of a reference model, from its name and shape alone.

No library's random numbers: the same bits on every machine, in numpy and in torch's hands.
"""

import math
import re
import zlib

import numpy as np

CHUNK = 1 << 16  # elements that stay in a core's cache

# The last norm of a bottleneck block: small, as training makes it, or 50 blocks would multiply the
# activations by 2 ** 25.
LAST_NORM = re.compile(r"\b(bn3|norm_c|conv\.3)\.weight$")


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`-> [*shape]` float32, even on [-1, 1): a hash of the name and of the element's number.

    Source: the finalizer of MurmurHash3 (32 bits), on the number times the golden ratio.
    """
    seed = np.uint32(zlib.crc32(name.encode()))
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, values.size, CHUNK):
        bits = np.arange(start, min(start + CHUNK, values.size), dtype=np.uint32)
        bits *= np.uint32(0x9E3779B1)
        bits ^= seed
        bits ^= bits >> 16
        bits *= np.uint32(0x85EBCA6B)
        bits ^= bits >> 13
        bits *= np.uint32(0xC2B2AE35)
        bits ^= bits >> 16
        part = values[start : start + CHUNK]
        np.multiply(bits >> 8, np.float32(2**-23), out=part, casting="unsafe")
        part -= 1
    return values.reshape(shape)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Name and shape (as torch orders axes) of a tensor to its values, float32; counters are 0.

    Kernels have He's variance, 2 / fan in, so that activations keep their size from layer to
    layer; scales lie around 1, running variances too, biases and running means around 0.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    values = uniform(name, shape)
    if name.endswith("running_var"):
        return 1 + values / 2
    if name.endswith("weight") and len(shape) > 1:
        return values * np.float32(math.sqrt(6 * shape[0] / values.size))
    if name.endswith("weight"):
        return (1 + values / 4) * np.float32(0.35 if LAST_NORM.search(name) else 1)
    return values / (5 if len(shape) == 1 else 2)  # biases and running means; embeddings


def targets(size: int, classes: int, *, batch: int = 2) -> np.ndarray:
    """`-> [B, H, W]` int64, classes of pixels: stripes across, of another slope for each image."""
    rows, columns = np.indices((size, size))
    return np.stack([((1 + n) * rows + columns) // 5 % classes for n in range(batch)])


def clip(size: int, frames: int) -> np.ndarray:
    """`-> [2, C, T, H, W]` float32: `image`'s noise, another in every frame."""
    pictures = [image(size, name=f"frame {t} of image") for t in range(frames)]
    return np.stack(pictures, 2)


def image(size: int, *, batch: int = 2, channels: int = 3, name: str = "image") -> np.ndarray:
    """`-> [B, C, H, W]` float32 of mean 0 and variance 1: noise, each image finer than the last.

    Coarse noise survives the mean over a map, so that the images' outputs differ.
    """
    cells = [max(1, size // (8 * (1 + number))) for number in range(batch)]
    pictures = []
    for number, cell in enumerate(cells):
        side = -(-size // cell)
        coarse = uniform(f"{name} {number}", (channels, side, side))
        pictures.append(coarse.repeat(cell, 1).repeat(cell, 2)[:, :size, :size])
    return np.stack(pictures) * np.float32(math.sqrt(3))
