"""Rounding of channel numbers."""


def make_divisible(width: float) -> int:
    """Rounds a number of channels to a multiple of 8, at least 8.

    It takes the nearest multiple, or the next one where rounding down would lose more than a tenth.

    Args:
        width: number of channels.

    Returns:
        Rounded number of channels.

    Source: TensorFlow's slim/nets/mobilenet, which torchvision and timm follow.

    >>> [make_divisible(width) for width in (3, 11.2, 12, 24 * 0.75, 33.6)]
    [8, 16, 16, 24, 32]
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
