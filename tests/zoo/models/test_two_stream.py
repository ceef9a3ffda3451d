"""The two streams: how they are fused, of which nets they may be, and what a file keeps of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.conftest import draw_variables
from tests.zoo.small_models import small
from zoo.preprocess import Preprocessing

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def case():
    model = small("two_stream")[0]
    both = RANDOM.normal(size=(2, 32, 32, 7)).astype(np.float32)
    variables = draw_variables(model, both.shape[1:])
    return model, variables, both, jax.jit(model.apply)(variables, both[..., :3], both[..., 3:])


def test_scores_are_the_mean_of_both_softmaxes(case):
    model, variables, both, out = case
    scores = []
    for name, image in (("spatial", both[..., :3]), ("temporal", both[..., 3:])):
        own = {kind: tree[name] for kind, tree in variables.items() if name in tree}
        alone = jax.jit(getattr(model, name).apply)(own, image)
        np.testing.assert_allclose(out[f"{name}_logits"], alone["logits"], rtol=1e-4, atol=1e-5)
        odds = np.exp(np.asarray(alone["logits"], float))
        scores.append(odds / odds.sum(1, keepdims=True))
    np.testing.assert_allclose(out["scores"], np.mean(scores, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(out["logits"]), out["scores"], rtol=1e-5)


def test_frame_and_flow_as_one_image(case):
    model, variables, both, out = case
    joined = jax.jit(model.apply)(variables, both)
    jax.tree.map(np.testing.assert_array_equal, joined, out)


def test_a_file_keeps_both_nets(case, tmp_path):
    model, variables, _, _ = case
    seen = Preprocessing((0.5,) * 7, (0.25,) * 7, (32, 32), frames=3)
    extra = {"preprocessing": seen}
    zoo.save_model("two_stream", tmp_path / "a", model, variables, extra=extra)
    again, values = zoo.load_model("two_stream", tmp_path / "a")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, values, variables)


def test_nets_by_name():
    model = zoo.create_model(
        "two_stream", spatial="mobilenet_v2", temporal="resnet20", num_classes=7
    )
    assert model.spatial.num_classes == model.temporal.num_classes == 7
    half = model.clone(dtype=jnp.bfloat16, axis_name="data")
    assert half.spatial.dtype == jnp.bfloat16 and half.temporal.axis_name == "data"
    with pytest.raises(ValueError, match="unknown model .resnet21."):
        zoo.create_model("two_stream", temporal="resnet21")


def test_the_temporal_net_is_the_spatial_one_without_its_second_norm():
    spatial, temporal = (
        zoo.create_model(f"two_stream_{name}_cnn_m") for name in ("spatial", "temporal")
    )
    assert (spatial.normalized, temporal.normalized) == (
        (True, True, False),
        (True, False, False),
    )
    assert zoo.model_card("two_stream_temporal_cnn_m").preprocessing.frames == 11
