"""The cheapest of each family, for what is tested by running a model."""

import flax.linen as nn

import zoo
from zoo.models.resnet import ResNet
from zoo.models.two_stream import CNNM
from zoo.models.vgg import VGG
from zoo.registry import variant_card

# Fields that make it cheaper still; some families more than once: their faces share little.
SMALL = {
    "alexnet": dict(num_classes=7, hidden=24),
    "alexnet_2012": dict(num_classes=7, hidden=24),
    "autoencoder": dict(widths=(12, 5)),
    "c3d": dict(widths=((3,), (4,), (5, 6)), hidden=9, num_classes=7),
    "cnn3d_ji2013": dict(width=9),
    "conv_autoencoder": dict(widths=(4, 6), act="silu"),
    "densenet121": dict(depths=(1, 2), growth=4, width=8, num_classes=7),
    "densenet40_k12": dict(depths=(1, 2), growth=4, width=6),
    "fast_rcnn_vgg16": dict(
        backbone=VGG(widths=(2, 3, 4, 5, 6), depths=(1, 1, 1, 1, 1)),
        hidden=9,
        num_classes=3,
        box_batch_size_per_image=8,
        box_detections_per_img=5,
    ),
    "fasterrcnn_resnet50_fpn": dict(
        backbone=ResNet((1,), block="basic", width=8),
        num_classes=3,
        width=8,
        hidden=12,
        anchor_sizes=((8,), (16,)),
        rpn_pre_nms_top_n=(20, 20),
        rpn_post_nms_top_n=(12, 6),
        rpn_batch_size_per_image=16,
        box_batch_size_per_image=8,
        box_detections_per_img=5,
    ),
    "fcn8s_vgg16": dict(backbone=VGG(widths=(2, 3, 4, 5, 6)), hidden=9, num_classes=3),
    "fcn_resnet50": dict(
        backbone=ResNet((2, 1, 1), block="basic", width=8), num_classes=3, output_stride=4
    ),
    "lenet5": {},
    "lenet5_modern": {},
    "mlp": dict(widths=(12, 9)),
    "mobilenet_v1_025": dict(stages=((1, 64), (2, 128)), num_classes=7),
    "mobilenet_v2_035": dict(stages=((16,), (24, 24), (32,)), num_classes=7),
    "preact_resnet110": dict(depths=(2, 1)),
    "preact_resnet164": dict(depths=(2, 1)),
    "r3d_18": dict(
        depths=(1, 2, 1), kinds=("2d", "3d", "2plus1d"), width=6, factored_stem=True, num_classes=7
    ),
    "resnet18": dict(depths=(2, 1), num_classes=7),
    "resnet50": dict(depths=(2, 1), num_classes=7),
    "slow_r50": dict(depths=(1, 1), width=4, frames=(1, 3), num_classes=7),
    "slowfast_r50": dict(
        depths=(1, 1), width=8, slow_frames=(1, 3), fast_frames=(3, 3), lateral=5, num_classes=7
    ),
    "two_stream": dict(
        spatial=ResNet((1,), block="basic", width=6),
        temporal=CNNM(
            layers=(((4, 7, 2, 0),), ((5, 3, 1, 1),)), hidden=(6, 7), normalized=(True, False)
        ),
        num_classes=7,
    ),
    "unet": dict(width=4, depth=2, num_classes=3),
    "unet_2015_release": dict(width=4, depth=1),
    "unet_same": dict(width=4, depth=2, num_classes=3),
    "vgg11_bn": dict(num_classes=7, hidden=24),
    "vgg11_lrn": dict(num_classes=7, hidden=24),
    "vit_ti_16": dict(depth=2, width=24, num_classes=7, image_size=48),
    "yolo_grid": dict(
        backbone=ResNet((1, 1), block="basic", width=6), num_classes=3, stride=8, width=8
    ),
    "yolov1_darknet": dict(
        layers=((4, 7, 2), None, (6, 3, 1), None, (6, 1, 1)), local=5, hidden=9, num_classes=3
    ),
}

# The side of their images, where the card's would cost seconds.
SIDE = {
    "alexnet": 95,
    "alexnet_2012": 99,
    "densenet121": 64,
    "densenet40_k12": 16,
    "fast_rcnn_vgg16": 40,
    "fasterrcnn_resnet50_fpn": 32,
    "fcn8s_vgg16": 17,
    "fcn_resnet50": 33,
    "mobilenet_v1_025": 32,
    "mobilenet_v2_035": 32,
    "c3d": 12,
    "r3d_18": 16,
    "slow_r50": 16,
    "slowfast_r50": 16,
    "two_stream": 32,
    "resnet18": 48,
    "resnet50": 48,
    "unet": 44,
    "unet_2015_release": 20,
    "unet_same": 22,
    "vgg11_bn": 32,
    "vgg11_lrn": 32,
    "vit_ti_16": 48,
    "yolo_grid": 33,
    "yolov1_darknet": 32,
}

FRAMES = {"c3d": 4, "r3d_18": 4, "slow_r50": 3, "slowfast_r50": 8}  # of their clips


def small(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A name of SMALL to the model and the shape of its images."""
    *sides, channels = variant_card(name)[0]["input"]
    frames = [FRAMES[name]] if name in FRAMES else sides[:-2]
    sides = [SIDE[name]] * 2 if name in SIDE else sides[-2:]
    return zoo.create_model(name, **SMALL[name]), (*frames, *sides, channels)
