"""Addresses, accuracies and preprocessing of published weights, by variant."""

from typing import Any

ADDRESSES = {  # most file names below end in the start of their sha256
    "torchvision": "https://download.pytorch.org/models/",
    "akamaster": "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/",
    "pytorchvideo": "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/",
}

# File; accuracy in % as measured by torchvision (top-1 on ImageNet's validation set, mean IoU of
# segmenters, COCO's box AP of detectors); and the preprocessing that differs from IMAGENET_NORM,
# such as the resized short side and the crop in pixels.
IMAGENET_NORM = dict(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    short=256,
    side=224,
    interpolation="bilinear",
)
V2_PREPROCESSING = dict(short=232)
SEGMENTATION_PREPROCESSING = dict(short=520, side=520)  # without a crop
DETECTION_PREPROCESSING = dict(
    short=800, side=(800, 1344), sides=(800, 1333)
)  # aspect ratio kept, padded
VIDEO_PREPROCESSING = dict(  # torchvision's for Kinetics, at 15 frames a second
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
    short=128,
    side=112,
    frames=16,
    stride=2,
)


def swag_preprocessing(side: int) -> dict:
    """Returns the preprocessing of weights pre-trained on Instagram images: no crop margin."""
    return dict(short=side, side=side, interpolation="bicubic")


TORCHVISION: dict[str, dict[str, tuple[Any, ...]]] = {
    "alexnet": {"IMAGENET1K_V1": ("alexnet-owt-7be5be79.pth", 56.522)},
    "densenet121": {"IMAGENET1K_V1": ("densenet121-a639ec97.pth", 74.434)},
    "densenet161": {"IMAGENET1K_V1": ("densenet161-8d451a50.pth", 77.138)},
    "densenet169": {"IMAGENET1K_V1": ("densenet169-b2777c0a.pth", 75.6)},
    "densenet201": {"IMAGENET1K_V1": ("densenet201-c1103571.pth", 76.896)},
    "fasterrcnn_resnet50_fpn": {
        "COCO_V1": ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 37.0, DETECTION_PREPROCESSING)
    },
    "fcn_resnet101": {
        "COCO_WITH_VOC_LABELS_V1": (
            "fcn_resnet101_coco-7ecb50ca.pth",
            63.7,
            SEGMENTATION_PREPROCESSING,
        )
    },
    "fcn_resnet50": {
        "COCO_WITH_VOC_LABELS_V1": (
            "fcn_resnet50_coco-1167a1af.pth",
            60.5,
            SEGMENTATION_PREPROCESSING,
        )
    },
    "mobilenet_v2": {
        "IMAGENET1K_V1": ("mobilenet_v2-b0353104.pth", 71.878),
        "IMAGENET1K_V2": ("mobilenet_v2-7ebf99e0.pth", 72.154, V2_PREPROCESSING),
    },
    "mc3_18": {"KINETICS400_V1": ("mc3_18-a90a0ba3.pth", 63.96, VIDEO_PREPROCESSING)},
    "r2plus1d_18": {"KINETICS400_V1": ("r2plus1d_18-91a641e6.pth", 67.463, VIDEO_PREPROCESSING)},
    "r3d_18": {"KINETICS400_V1": ("r3d_18-b3b3357e.pth", 63.2, VIDEO_PREPROCESSING)},
    "resnet101": {
        "IMAGENET1K_V1": ("resnet101-63fe2227.pth", 77.374),
        "IMAGENET1K_V2": ("resnet101-cd907fc2.pth", 81.886, V2_PREPROCESSING),
    },
    "resnet152": {
        "IMAGENET1K_V1": ("resnet152-394f9c45.pth", 78.312),
        "IMAGENET1K_V2": ("resnet152-f82ba261.pth", 82.284, V2_PREPROCESSING),
    },
    "resnet18": {"IMAGENET1K_V1": ("resnet18-f37072fd.pth", 69.758)},
    "resnet34": {"IMAGENET1K_V1": ("resnet34-b627a593.pth", 73.314)},
    "resnet50": {
        "IMAGENET1K_V1": ("resnet50-0676ba61.pth", 76.13),
        "IMAGENET1K_V2": ("resnet50-11ad3fa6.pth", 80.858, V2_PREPROCESSING),
    },
    "resnext101_32x8d": {
        "IMAGENET1K_V1": ("resnext101_32x8d-8ba56ff5.pth", 79.312),
        "IMAGENET1K_V2": ("resnext101_32x8d-110c445d.pth", 82.834, V2_PREPROCESSING),
    },
    "resnext50_32x4d": {
        "IMAGENET1K_V1": ("resnext50_32x4d-7cdf4587.pth", 77.618),
        "IMAGENET1K_V2": ("resnext50_32x4d-1a0047aa.pth", 81.198, V2_PREPROCESSING),
    },
    "vgg11": {"IMAGENET1K_V1": ("vgg11-8a719046.pth", 69.02)},
    "vgg11_bn": {"IMAGENET1K_V1": ("vgg11_bn-6002323d.pth", 70.37)},
    "vgg13": {"IMAGENET1K_V1": ("vgg13-19584684.pth", 69.928)},
    "vgg13_bn": {"IMAGENET1K_V1": ("vgg13_bn-abd245e5.pth", 71.586)},
    "vgg16": {"IMAGENET1K_V1": ("vgg16-397923af.pth", 71.592)},
    "vgg16_bn": {"IMAGENET1K_V1": ("vgg16_bn-6c64b313.pth", 73.36)},
    "vgg19": {"IMAGENET1K_V1": ("vgg19-dcbb9e9d.pth", 72.376)},
    "vgg19_bn": {"IMAGENET1K_V1": ("vgg19_bn-c79401a0.pth", 74.218)},
    "vit_b_16": {
        "IMAGENET1K_V1": ("vit_b_16-c867db91.pth", 81.072),
        "IMAGENET1K_SWAG_E2E_V1": ("vit_b_16_swag-9ac1b537.pth", 85.304, swag_preprocessing(384)),
        "IMAGENET1K_SWAG_LINEAR_V1": (
            "vit_b_16_lc_swag-4e70ced5.pth",
            81.886,
            swag_preprocessing(224),
        ),
    },
    "vit_b_32": {"IMAGENET1K_V1": ("vit_b_32-d86f8d99.pth", 75.912)},
    "vit_h_14": {
        "IMAGENET1K_SWAG_E2E_V1": ("vit_h_14_swag-80465313.pth", 88.552, swag_preprocessing(518)),
        "IMAGENET1K_SWAG_LINEAR_V1": (
            "vit_h_14_lc_swag-c1eb923e.pth",
            85.708,
            swag_preprocessing(224),
        ),
    },
    "vit_l_16": {
        "IMAGENET1K_V1": ("vit_l_16-852ce7e3.pth", 79.662, dict(short=242)),
        "IMAGENET1K_SWAG_E2E_V1": ("vit_l_16_swag-4f3808c9.pth", 88.064, swag_preprocessing(512)),
        "IMAGENET1K_SWAG_LINEAR_V1": (
            "vit_l_16_lc_swag-4d563306.pth",
            85.146,
            swag_preprocessing(224),
        ),
    },
    "vit_l_32": {"IMAGENET1K_V1": ("vit_l_32-c7638314.pth", 76.972)},
    "wide_resnet101_2": {
        "IMAGENET1K_V1": ("wide_resnet101_2-32ee1156.pth", 78.848),
        "IMAGENET1K_V2": ("wide_resnet101_2-d733dc28.pth", 82.51, V2_PREPROCESSING),
    },
    "wide_resnet50_2": {
        "IMAGENET1K_V1": ("wide_resnet50_2-95faca4d.pth", 78.468),
        "IMAGENET1K_V2": ("wide_resnet50_2-9ba9bcbe.pth", 81.602, V2_PREPROCESSING),
    },
}

# Repositories of timm on the hub, trained on ImageNet's 1,000 classes and free to use, as listed in
# the pretrained_cfgs of timm 1.0.31.
TIMM = {
    "densenet121": ("densenet121.ra_in1k",),
    "mobilenet_v1": ("mobilenetv1_100.ra4_e3600_r224_in1k",),
    "mobilenet_v2": ("mobilenetv2_100.ra_in1k",),
    "mobilenet_v2_050": ("mobilenetv2_050.lamb_in1k",),
    "mobilenet_v2_140": ("mobilenetv2_140.ra_in1k",),
    "resnet101": ("resnet101.a1_in1k", "resnet101.a1h_in1k", "resnet101.gluon_in1k"),
    "resnet152": ("resnet152.a1_in1k", "resnet152.a1h_in1k", "resnet152.gluon_in1k"),
    "resnet18": ("resnet18.a1_in1k", "resnet18.gluon_in1k"),
    "resnet34": ("resnet34.a1_in1k", "resnet34.bt_in1k", "resnet34.gluon_in1k"),
    "resnet50": (
        "resnet50.a1_in1k",
        "resnet50.a1h_in1k",
        "resnet50.b1k_in1k",
        "resnet50.c1_in1k",
        "resnet50.d_in1k",
        "resnet50.ra_in1k",
        "resnet50.gluon_in1k",
    ),
    "resnext50_32x4d": ("resnext50_32x4d.a1_in1k", "resnext50_32x4d.ra_in1k"),
    "vgg11": ("vgg11.tv_in1k",),
    "vgg11_bn": ("vgg11_bn.tv_in1k",),
    "vgg13": ("vgg13.tv_in1k",),
    "vgg13_bn": ("vgg13_bn.tv_in1k",),
    "vgg16": ("vgg16.tv_in1k",),
    "vgg16_bn": ("vgg16_bn.tv_in1k",),
    "vgg19": ("vgg19.tv_in1k",),
    "vgg19_bn": ("vgg19_bn.tv_in1k",),
    "vit_b_16": (
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "vit_base_patch16_384.augreg_in21k_ft_in1k",
        "vit_base_patch16_224.orig_in21k_ft_in1k",
        "vit_base_patch16_224.augreg_in1k",
        "vit_base_patch16_224.sam_in1k",
    ),
    "vit_b_32": (
        "vit_base_patch32_224.augreg_in21k_ft_in1k",
        "vit_base_patch32_384.augreg_in21k_ft_in1k",
        "vit_base_patch32_224.augreg_in1k",
        "vit_base_patch32_224.sam_in1k",
    ),
    "vit_l_16": (
        "vit_large_patch16_224.augreg_in21k_ft_in1k",
        "vit_large_patch16_384.augreg_in21k_ft_in1k",
    ),
    "vit_l_32": ("vit_large_patch32_384.orig_in21k_ft_in1k",),
    "vit_s_16": (
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "vit_small_patch16_384.augreg_in21k_ft_in1k",
        "vit_small_patch16_224.augreg_in1k",
    ),
    "vit_ti_16": (
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "vit_tiny_patch16_384.augreg_in21k_ft_in1k",
    ),
    "wide_resnet50_2": ("wide_resnet50_2.racm_in1k",),
}

AKAMASTER = {  # trained on CIFAR-10
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet44": "resnet44-014dd654.th",
    "resnet56": "resnet56-4bfd9763.th",
    "resnet110": "resnet110-1d1ed7c2.th",
    "resnet1202": "resnet1202-f3b1deed.th",
}

PYTORCHVIDEO = {  # trained on Kinetics-400; the file names contain no hash
    "slow_r50": "SLOW_8x8_R50.pyth",
    "slowfast_r50": "SLOWFAST_8x8_R50.pyth",
    "slowfast_r101": "SLOWFAST_8x8_R101.pyth",
}

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Pascal VOC's classes in its order, which FCN's and torchvision's published weights use.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip


# COCO's classes by their ids from 1 in torchvision's weights; ten ids are unused.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "N/A", "stop sign", "parking meter", "bench", "bird", "cat",
    "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "N/A", "backpack",
    "umbrella", "N/A", "N/A", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "N/A", "wine glass", "cup", "fork", "knife", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "N/A", "dining table", "N/A", "N/A", "toilet",
    "N/A", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "N/A", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip


def published_sources(name: str) -> tuple[str, ...]:
    """Returns the sources of a variant's published weights, as `zoo.load_model` takes them.

    >>> published_sources("resnet18")[:2]
    ('torchvision://IMAGENET1K_V1', 'hf://timm/resnet18.a1_in1k')
    """
    sources = [f"torchvision://{tag}" for tag in TORCHVISION.get(name, {})]
    sources += [f"hf://timm/{repository}" for repository in TIMM.get(name, ())]
    if name in AKAMASTER:
        sources.append(ADDRESSES["akamaster"] + AKAMASTER[name])
    if name in PYTORCHVIDEO:
        sources.append(ADDRESSES["pytorchvideo"] + PYTORCHVIDEO[name])
    return tuple(sources)
