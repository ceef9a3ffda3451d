"""Two-stream network: late fusion of a frame network and an optical flow network."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.backbone import configure_backbone
from zoo.layers.initializer import lookup_initializer
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.local_response_norm import local_response_norm
from zoo.ops.pooling import adaptive_avg_pool, ceil_padding, max_pool
from zoo.preprocess import IMAGENET_NORM

# (width, kernel, stride, padding); a stage is the input of a 3x3 max-pooling of stride 2
CNN_M = (
    ((96, 7, 2, 0),),
    ((256, 5, 2, 1),),
    ((512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1)),
)
RGB_CHANNELS = 3  # channels of the frame


@final
class CNNM(nn.Module):
    """CNN-M: either stream of the two-stream network.

    The input is a frame, or C = 2 L channels of flow with x and y alternating. The stages are the
    inputs of the three max-poolings, of stride 2, 8 and 16; windows may be cut short, as in Caffe.
    `pooled` is the mean of the last pooling's map. The head flattens that map by rows, columns and
    channels, after averaging it to 6 x 6 if the image is not 224 x 224.

    Attributes:
        num_classes: number of classes; 0 removes the head.
        layers: (width, kernel, stride, padding) of the convolutions of each stage.
        hidden: units of fc6 and fc7.
        normalized: stages that are followed by local response normalization.
        dropout: dropout rate of the outputs of fc6 and fc7 (published: 0.9 for a stream trained
            from scratch).

    Args:
        image: images [B, H, W, C].
        train: apply dropout.

    Returns:
        `stage1` to `stage3`, `pooled` [B, D], `fc7` [B, 2048] and `logits` [B, K].

    Raises:
        ValueError: if the image is smaller than 31 x 31.

    Source: Simonyan & Zisserman 2014, Two-Stream Convolutional Networks for Action Recognition in
    Videos, figure 1; Chatfield et al. 2014, Return of the Devil in the Details, table 1,
    CNN-M-2048.

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(CNNM(hidden=(8, 8)).init_with_output, jax.random.key(0), image)
    >>> out["stage3"].shape, out["logits"].shape
    ((1, 13, 13, 512), (1, 101))
    """

    num_classes: int = 101
    layers: tuple[tuple[tuple[int, int, int, int], ...], ...] = CNN_M
    hidden: tuple[int, int] = (4096, 2048)
    normalized: tuple[bool, ...] = (True, True, False)
    dropout: float = 0.5
    act: str = "relu"
    kernel_init: str = "torch"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        if min(image.shape[1:3]) < 31:
            raise ValueError(f"expected images of at least 31 x 31 for CNN-M, got {image.shape}")
        x, outputs, act, number = image, {}, lookup_activation(self.act), 0
        for k, layers in enumerate(self.layers, 1):
            for width, kernel, stride, padding in layers:
                number += 1
                x = nn.Conv(
                    width,
                    (kernel, kernel),
                    stride,
                    padding=padding,
                    kernel_init=lookup_initializer(self.kernel_init),
                    dtype=self.dtype,
                    conv_general_dilated=conv_general_dilated,
                    name=f"conv{number}",
                )(x)
                x = act(x)
            if self.normalized[k - 1]:
                x = local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)
            outputs[f"stage{k}"] = x
            x = max_pool(x, (3, 3), (2, 2), ceil_padding(x.shape[1:3], (3, 3), (2, 2)))
        outputs["pooled"] = x.mean((1, 2))
        if self.num_classes:
            outputs |= self.head(x, train=train)
        return outputs

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Applies fc6, fc7 and the logits."""
        dense = functools.partial(nn.Dense, kernel_init=lookup_initializer(self.kernel_init))
        act, drop = lookup_activation(self.act), nn.Dropout(self.dropout, deterministic=not train)
        x = adaptive_avg_pool(x, size=(6, 6)).reshape(x.shape[0], -1)
        for name, width in zip(("fc6", "fc7"), self.hidden, strict=True):
            x = drop(act(dense(width, dtype=self.dtype, name=name)(x)))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        return dict(fc7=x, logits=dense(self.num_classes, dtype=wide, name="head")(x))


@final
class TwoStream(nn.Module):
    """Two-stream network: the mean of the softmax outputs of two image classifiers.

    `logits` are the logarithms of the scores, so a softmax returns the scores. Frame and flow may
    come as one image [B, H, W, 3 + 2 L], with the frame first.

    Attributes:
        spatial: any image classifier of the zoo, for the frame.
        temporal: any image classifier of the zoo, for the flow.
        num_classes: number of classes of both; 0 removes both heads.

    Args:
        image: frames [B, H, W, 3], or frames and flow [B, H, W, 3 + 2 L].
        flow: optical flow [B, H, W, 2 L].
        train: passed to both streams.

    Returns:
        `scores` and `logits` [B, K], `spatial_logits`, `temporal_logits`, `pooled`, and the stages
        as `spatial_stageK` and `temporal_stageK`.

    Source: Simonyan & Zisserman 2014, Two-Stream Convolutional Networks for Action Recognition in
    Videos, section 2, fusion by averaging.

    >>> from zoo.models.resnet import ResNet
    >>> tiny = ResNet((1,), block="basic", width=8)
    >>> frame, flow = (jax.ShapeDtypeStruct((1, 32, 32, n), jnp.float32) for n in (3, 20))
    >>> model = TwoStream(tiny, tiny, num_classes=5)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), frame, flow)
    >>> out["scores"].shape, out["temporal_stage1"].shape
    ((1, 5), (1, 8, 8, 8))
    """

    spatial: nn.Module
    temporal: nn.Module
    num_classes: int = 101
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        for stream in ("spatial", "temporal"):
            if isinstance(module := getattr(self, stream), nn.Module):
                setattr(
                    self, stream, configure_backbone(module, self, num_classes=self.num_classes)
                )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, flow: jax.Array | None = None, *, train: bool = False
    ) -> dict[str, jax.Array]:
        if flow is None:
            image, flow = image[..., :RGB_CHANNELS], image[..., RGB_CHANNELS:]
        chex.assert_rank([image, flow], 4)
        outputs, scores, pooled = {}, [], []
        for name, stream, inputs in (
            ("spatial", self.spatial, image),
            ("temporal", self.temporal, flow),
        ):
            result = stream(inputs, train=train)
            outputs |= {f"{name}_{k}": v for k, v in result.items() if k.startswith("stage")}
            pooled.append(result["pooled"])
            if self.num_classes:
                outputs[f"{name}_logits"] = result["logits"]
                scores.append(jax.nn.log_softmax(result["logits"]))
        outputs["pooled"] = jnp.concatenate(pooled, -1)
        if self.num_classes:
            outputs["logits"] = jnp.logaddexp(*scores) - jnp.log(2).astype(scores[0].dtype)
            outputs["scores"] = jnp.exp(outputs["logits"])
        return outputs


FRAME = IMAGENET_NORM
FLOW = dict(mean=(0.5,) * 20, std=(0.225,) * 20)  # uint8; 128 means no motion
BOTH = {key: FRAME[key] + FLOW[key] for key in FRAME}
CLIP = dict(crop=224 / 256, frames=11)  # eleven frames give ten flow fields

CARD = dict(
    module=TwoStream,
    task="video",
    input=(224, 224, 23),
    paper="Simonyan, Zisserman 2014, Two-Stream Convolutional Networks for Action Recognition in "
    "Videos",
    preprocessing=dict(**BOTH, **CLIP),
    pathways=("spatial", "temporal"),
)

SINGLE_STREAM = dict(module=CNNM, pathways=())

VARIANTS = {  # fields of TwoStream, and of CNNM; parameters
    "two_stream_spatial_cnn_m": dict(  # 90,627,813
        card=dict(
            **SINGLE_STREAM,
            task="classification",
            input=(224, 224, 3),
            preprocessing=dict(**FRAME, crop=224 / 256),
            reported="UCF101 73.0 %, HMDB51 40.5 %",
        )
    ),
    "two_stream_temporal_cnn_m": dict(  # 90,707,781
        normalized=(True, False, False),
        card=dict(
            **SINGLE_STREAM,
            input=(224, 224, 20),
            preprocessing=dict(**FLOW, **CLIP),
            reported="UCF101 83.7 %, HMDB51 54.6 %",
        ),
    ),
    "two_stream_cnn_m": dict(  # 181,335,594
        spatial="two_stream_spatial_cnn_m",
        temporal="two_stream_temporal_cnn_m",
        card=dict(reported="UCF101 86.9 %, by an SVM on the scores 88.0 %; HMDB51 58.0 and 59.4 %"),
    ),
    "two_stream": dict(spatial="resnet18", temporal="resnet18"),  # of any two image classifiers
}
