"""A figure with random examples of every augmentation of one photograph."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from train.augment import color, crops, geometry, levels, mix, policies, scene, zoom
from train.augment.mosaic import mosaic
from train.augment.pixels import from_unit, to_unit

TILE_SIDE = 160  # pixels
SAMPLES = 6
GALLERY_COLUMNS = 2
GAP = 4  # white pixels between two examples
MASKS = ((255, 200, 0), (0, 160, 255), (230, 0, 120))  # colors of a disc, a box and a triangle

# Operations that only the policies use, by title.
DETERMINISTIC: dict[str, list[Callable]] = {
    "the photograph · posterize 2 bits · solarize 128 · autocontrast · equalize · invert": [
        lambda image: image,
        partial(levels.posterize, bits=2),
        partial(levels.solarize, threshold=128),
        levels.autocontrast,
        levels.equalize,
        levels.invert,
    ],
    "sharpness 0 · 0.5 · 1 · 2 · 4 · 8": [
        partial(color.adjust_sharpness, factor=factor) for factor in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    ],
}


def draw_gallery(image: np.ndarray, *, key: jax.Array, side: int = TILE_SIDE) -> Figure:
    """Draws one row of random examples for each augmentation.

    Args:
        image: image [H, W, C] uint8, or floats in [0, 1]; its center square is used.
        key: random key [].
        side: side of the images in pixels.

    Returns:
        The figure.
    """
    square = square_image(jnp.asarray(image), side=side)
    titles = [*DETERMINISTIC, *random_scene(side), *joint_rows(side)]
    drawn = jax.jit(augmentation_rows)(key, square)
    lines = -(-len(drawn) // GALLERY_COLUMNS)
    figure = Figure(figsize=(6.5 * GALLERY_COLUMNS, 1.33 * lines), layout="constrained")
    grid = figure.subplots(lines, GALLERY_COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, title, pictures in zip(grid.T.flat, titles, drawn, strict=False):
        axes.imshow(concat_tiles(np.asarray(pictures)))
        axes.set_title(title, loc="left", fontsize=10)
    return figure


def square_image(image: jax.Array, *, side: int) -> jax.Array:
    """Resizes the center square of an image to [side, side, 3] uint8."""
    height, width, channels = image.shape
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = to_unit(image)[top : top + short, left : left + short]
    square = jax.image.resize(square, (side, side, channels), "cubic")
    return from_unit(jnp.broadcast_to(square, (side, side, 3)), jnp.dtype(jnp.uint8))


def augmentation_rows(key: jax.Array, image: jax.Array) -> list[jax.Array]:
    """Returns rows [N, h, w, 3] of examples of all augmentations."""
    fixed = [jnp.stack([function(image) for function in row]) for row in DETERMINISTIC.values()]
    functions = [*random_scene(image.shape[0]).values(), *joint_rows(image.shape[0]).values()]
    keys = jax.random.split(key, (len(functions), SAMPLES))
    drawn = [
        jax.vmap(function, in_axes=(0, None))(own, image)
        for function, own in zip(functions, keys, strict=True)
    ]
    return fixed + drawn


def concat_tiles(pictures: np.ndarray) -> np.ndarray:
    """Joins images [N, h, w, C] uint8 to a row [h, N * (w + GAP), C] on white."""
    gaps = np.pad(pictures, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(gaps), 1)


def mix_rows(function: Callable) -> Callable:
    """Converts mixup or cutmix to a function that mixes an image with its mirror image."""

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        pair = jnp.stack([image, jnp.flip(image, 0)])
        batch = {"image": pair, "label": jnp.arange(2)}
        return function(jax.random.split(key), batch, classes=2)["image"][0]

    return one


def mosaic_inputs(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns a mosaic of the image and its mirrored and rotated images."""
    turns = (image, jnp.flip(image, 1), jnp.flip(image, 0), jnp.flip(image, (0, 1)))
    rows = {"boxes": jnp.zeros((4, 1, 4)), "box_valid": jnp.zeros((4, 1), bool)}
    return mosaic(jax.random.split(key, 4), {"image": jnp.stack(turns), **rows})["image"][0]


def example_mask(side: int) -> np.ndarray:
    """Returns a mask [side, side] uint8 of a disc of 1, a box of 2 and a triangle of 3."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    mask = np.zeros((side, side), np.uint8)
    mask[(y - 0.32) ** 2 + (x - 0.3) ** 2 < 0.2**2] = 1
    mask[(abs(y - 0.3) < 0.15) & (abs(x - 0.75) < 0.15)] = 2
    mask[(y > 0.55) & (y < 0.9) & (abs(x - 0.5) < (y - 0.55) * 0.8)] = 3
    return mask


def paint_mask(picture: jax.Array, mask: jax.Array) -> jax.Array:
    """Draws the shapes of a mask [h, w] over an image [h, w, 3] uint8, with red stripes for 255."""
    height, width = mask.shape
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    stripes = (rows + columns) % 8 < 2
    colors = jnp.asarray(((0, 0, 0), *MASKS), jnp.float32) / 255
    unit = to_unit(picture)
    drawn = jnp.minimum(mask, 3)
    over = 0.5 * unit + 0.5 * colors[drawn]
    unit = jnp.where(((mask > 0) & (mask < 255))[..., None], over, unit)
    red = jnp.asarray((0.8, 0.2, 0.2), jnp.float32).reshape(1, 1, 3)
    unit = jnp.where(((mask == 255) & stripes)[..., None], red, unit)
    return from_unit(unit, picture.dtype)


def mask_boxes(mask: np.ndarray) -> np.ndarray:
    """Returns the bounding boxes [3, 4] float32 of the shapes."""
    places = [np.nonzero(mask == number) for number in (1, 2, 3)]
    found = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in places]
    return np.array(found, np.float32)


def draw_frames(picture: jax.Array, boxes: jax.Array) -> jax.Array:
    """Draws boxes [3, 4] over an image [h, w, 3] uint8 in the colors of their shapes."""
    height, width, _ = picture.shape
    column, row = geometry.source_points(jnp.eye(2, 3), (height, width))
    for box, color_of in zip(boxes, MASKS, strict=True):
        edges = jnp.stack([column - box[0], box[2] - column, row - box[1], box[3] - row])
        inner = jnp.min(edges, 0)
        on = ((inner >= 0) & (inner < 2))[..., None]
        picture = jnp.where(on, jnp.asarray(color_of, picture.dtype)[None, None], picture)
    return picture


def apply_joint(function: Callable, *, grid: bool = False) -> Callable:
    """Converts a function of a scene to one of an image, whose mask contains the shapes.

    Args:
        function: function of a key and a scene.
        grid: draw lines on the image first, to show deformations.

    Returns:
        A function of a key and an image.
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        side = image.shape[0]
        line = np.arange(side) % max(side // 10, 2) == 0
        if grid:
            lines = jnp.asarray(line[:, None] | line[None])[..., None]
            image = jnp.where(lines, jnp.asarray(255, image.dtype), image)
        mask = example_mask(side)
        known = {"boxes": jnp.asarray(mask_boxes(mask)), "box_valid": jnp.ones(3, bool)}
        moved = function(key, {"image": image, "mask": jnp.asarray(mask), **known})
        return draw_frames(paint_mask(moved["image"], moved["mask"]), moved["boxes"])

    return one


def joint_rows(side: int) -> dict[str, Callable]:
    """Returns functions by title that augment an image [side, side, 3] with its shapes."""
    small, large = (3 * side // 4, 3 * side // 4), (side, 5 * side // 4)
    bent = dict(deviation=side / 16)
    gray = scene.image_only(partial(color.saturation, amount=1.0))
    return {
        "scene.flip, with the mask over it": apply_joint(scene.flip),
        "scene.translate, 1/4 of the side; stripes are ignored": apply_joint(
            partial(scene.translate, share=0.25)
        ),
        "scene.rotate, 30 degrees": apply_joint(partial(scene.rotate, degrees=30.0)),
        "scene.rotate, 30 degrees, reflect": apply_joint(
            partial(scene.rotate, degrees=30.0, mode="reflect")
        ),
        "scene.scale, 0.6 to 1.6": apply_joint(partial(scene.scale, factors=(0.6, 1.6))),
        "scene.affine, all of it, shear 20 degrees": apply_joint(
            partial(scene.affine, degrees=20.0, translation=0.1, factors=(0.8, 1.2), shear=20.0)
        ),
        f"scene.elastic, {side // 16} pixels, on a grid": apply_joint(
            partial(scene.elastic, **bent), grid=True
        ),
        f"scene.elastic, {side // 16} pixels, reflect": apply_joint(
            partial(scene.elastic, mode="reflect", **bent)
        ),
        f"scene.crop, {small[0]} of {side} pixels": apply_joint(partial(scene.crop, size=small)),
        f"scene.crop, {large[1]} of {side} pixels wide": apply_joint(
            partial(scene.crop, size=large)
        ),
        "scene.scaled_crop, 0.5 to 2": apply_joint(partial(scene.scaled_crop, size=(side, side))),
        "zoom.jitter, each edge by a fifth": apply_joint(zoom.jitter_crop),
        "zoom.patch, around an object": apply_joint(zoom.random_patch),
        "scene.image_alone, saturation": apply_joint(gray),
    }


def random_scene(side: int) -> dict[str, Callable]:
    """Returns functions by title that augment an image [side, side, C]."""
    size = (3 * side // 4, 3 * side // 4)
    return {
        "flip": geometry.flip,
        "flip, vertical": partial(geometry.flip, vertical=True),
        f"shift, {side // 8} pixels": partial(geometry.shift, pixels=side // 8),
        f"pad_crop, {side // 8} pixels, reflect": partial(
            crops.pad_crop, pixels=side // 8, mode="reflect"
        ),
        f"crop, {size[0]} of {side} pixels": partial(crops.crop, size=size),
        "resized_crop, 8 to 100 % of the area": partial(crops.resized_crop, size=(side, side)),
        "rotate, 30 degrees": partial(geometry.rotate, degrees=30.0),
        "translate, 1/4 of the side": partial(geometry.translate, share=0.25),
        "scale, 0.6 to 1.6": partial(geometry.scale, factors=(0.6, 1.6)),
        "affine, all of it, shear 20 degrees": partial(
            geometry.affine, degrees=20.0, translation=0.1, factors=(0.8, 1.2), shear=20.0
        ),
        "brightness, 0.6": partial(color.brightness, amount=0.6),
        "contrast, 0.8": partial(color.contrast, amount=0.8),
        "saturation, 1": partial(color.saturation, amount=1.0),
        "hue, half a turn": partial(color.hue, amount=0.5),
        "hsv, 0.1 of a turn, factors of 1.5": color.hsv,
        "noise, 0.1": partial(color.noise, deviation=0.1),
        "pca_color, 0.5 (AlexNet: 0.1)": partial(color.pca_color, deviation=0.5),
        "blur, 0.1 to 4 pixels": partial(color.blur, deviations=(0.1, 4.0)),
        "erase, noise": partial(mix.erase, probability=1.0),
        "erase, gray": partial(mix.erase, probability=1.0, value=0.5),
        "mixup, alpha 1, with itself upside down": mix_rows(partial(mix.mixup, alpha=1.0)),
        "cutmix, with itself upside down": mix_rows(mix.cutmix),
        "mosaic, of itself in four turns": mosaic_inputs,
        "auto_augment, ImageNet": policies.auto_augment,
        "auto_augment, CIFAR-10": partial(policies.auto_augment, policy=policies.CIFAR10),
        "rand_augment, 2 of magnitude 9": policies.rand_augment,
        "rand_augment, 2 of magnitude 20": partial(policies.rand_augment, magnitude=20),
        "trivial_augment, wide": policies.trivial_augment,
    }
