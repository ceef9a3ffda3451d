"""Augmentation mixes dtypes nowhere unsaid: uint8 and float32 meet by a cast alone."""

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def wavy(height: int, width: int, channels: int = 3) -> np.ndarray:
    """[H, W, C] uint8: soft waves, another phase in each channel, and a little grain."""
    y, x, c = np.mgrid[:height, :width, :channels]
    waves = 128 + 70 * np.sin(x / 4 + c) * np.cos(y / 5 - 2 * c) + 25 * c
    grain = np.random.default_rng(0).integers(-20, 21, waves.shape)
    return np.clip(waves + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """[24, 20, 3] uint8."""
    return wavy(24, 20)
