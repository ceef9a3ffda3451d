"""The picture holds a titled row for every augmentation there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment
from train.augment import gallery

NOT_DRAWN = {
    "images",
    "scene",
    "scenes",
    "zoom",
    "clip",  # of a photograph there is no clip
    "clips",
    "chain",
    "one_of",
    "identity",
    "IMAGENET",
    "CIFAR10",
}


def test_every_augmentation_has_a_row():
    rows = gallery.random_scene(32)
    assert {title.split(",")[0] for title in rows} == set(augment.__all__) - NOT_DRAWN
    shapes = jax.eval_shape(
        gallery.augmentation_rows, jax.random.key(0), jax.ShapeDtypeStruct((32, 32, 3), jnp.uint8)
    )
    joint = gallery.joint_rows(32)
    own = {f"scene.{name}" for name in ("image_alone", "translate", "rotate", "scale", "affine")}
    own |= {f"scene.{name}" for name in ("flip", "elastic", "crop", "scaled_crop")}
    own |= {"zoom.jitter", "zoom.patch"}
    assert {title.split(",")[0] for title in joint} == own
    assert len(shapes) == len(gallery.DETERMINISTIC) + len(rows) + len(joint)
    assert all(row.dtype == jnp.uint8 and row.shape[0] == gallery.SAMPLES for row in shapes)


@pytest.mark.parametrize("shape", [(20, 26, 3), (26, 20, 1)])
def test_gallery(monkeypatch, tmp_path, shape):
    """Rows in order, left column first; each strip holds its draws."""
    few = {"flip": augment.flip, "nothing": lambda key, image: image}
    monkeypatch.setattr(gallery, "random_scene", lambda side: few)
    monkeypatch.setattr(gallery, "joint_rows", lambda side: {})
    monkeypatch.setattr(gallery, "DETERMINISTIC", {})
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    figure = gallery.draw_gallery(image, key=jax.random.key(0), side=16)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(few)
    strips = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert all(one.shape == (16, gallery.SAMPLES * (16 + gallery.GAP), 3) for one in strips)
    first, second = strips[1][:, :16], strips[1][:, 16 + gallery.GAP : 32 + gallery.GAP]
    np.testing.assert_array_equal(first, second)
    figure.savefig(tmp_path / "gallery.png")


def test_the_photograph_is_its_middle_square():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200
    square = gallery.square_image(jnp.asarray(image), side=16)
    assert square.shape == (16, 16, 3) and np.unique(square[2:-2, 2:-2]).tolist() == [200]
