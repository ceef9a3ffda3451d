"""Golden files out of the references: `python -m tests.golden.make [--live] [NAME ...]`.

Needs the extra `parity` (and, where torch is a CPU build and torchvision is not, a module
`torchvision_cpu` on the path that declares torchvision's operators). Writes one npz a case into
this folder, or into --folder, which `make parity` reads.

A file holds `names`, the state dict as lines "name shape kind" (p a parameter, b a buffer);
`logits`, of segmenters every GRIDth pixel's, `auxiliary_logits` too; `stages`, mean and deviation per stage and image; and of a training step, in float64,
`loss`, `gradients` (the norm for each parameter) and `statistics` (mean and deviation of each
buffer afterwards).
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import math
import pathlib
import unittest.mock

with contextlib.suppress(ImportError):
    importlib.import_module("torchvision_cpu")
import numpy as np
import pytorchvideo.models.hub
import timm
import torch
import torchvision

from tests.golden.cases import CASES, GRID, Case
from tests.golden.fill import clip, fill, image, targets


class Narrow(torchvision.models.video.resnet.VideoResNet):
    """torchvision's ResNet of clips with an eighth of the channels, for 10 classes."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        narrow = {3: 3, 45: 45 // 8, 64: 8}
        for index, layer in enumerate(self.stem):
            if isinstance(layer, torch.nn.Conv3d):
                sides = (narrow[layer.in_channels], narrow[layer.out_channels])
                how = (layer.kernel_size, layer.stride, layer.padding)
                self.stem[index] = torch.nn.Conv3d(*sides, *how, bias=False)
            elif isinstance(layer, torch.nn.BatchNorm3d):
                self.stem[index] = torch.nn.BatchNorm3d(narrow[layer.num_features])
        self.fc = torch.nn.Linear(512 // 8, 10)

    def _make_layer(self, block, conv_builder, planes, blocks, stride=1):
        self.inplanes = 8 if planes == 64 else self.inplanes
        return super()._make_layer(block, conv_builder, planes // 8, blocks, stride)


def from_torchvision(
    name: str, *, hidden: int = 4096, lrn: bool = False, pointwise: bool = False, **fields
) -> torch.nn.Module:
    """A model of torchvision; AlexNet and VGG with other hidden layers, VGG as A-LRN or as C.

    The layers keep their names: a 1 x 1 convolution takes the place of a 3 x 3, and the first ReLU
    becomes a ReLU with its normalization. Segmenters have their auxiliary heads,
    and a backbone of other `depths` where these are told; those of clips with `layers` are Narrow.
    """
    if "layers" in fields:
        video = torchvision.models.video.resnet
        makers = dict(
            r3d_18=[video.Conv3DSimple] * 4,
            mc3_18=[video.Conv3DSimple] + [video.Conv3DNoTemporal] * 3,
            r2plus1d_18=[video.Conv2Plus1D] * 4,
        )[name]
        stem = video.R2Plus1dStem if name == "r2plus1d_18" else video.BasicStem
        return Narrow(video.BasicBlock, makers, list(fields["layers"]), stem)
    if "depths" in fields:
        dilated = torchvision.models.resnet.ResNet(
            torchvision.models.resnet.Bottleneck,
            list(fields["depths"]),
            replace_stride_with_dilation=[False, True, True],
        )
        return torchvision.models.segmentation.fcn._fcn_resnet(dilated, 21, aux=True)
    if name.startswith("fcn"):
        fields |= dict(weights_backbone=None, aux_loss=True)
    model = torchvision.models.get_model(name, weights=None, **fields)
    if hidden != 4096:
        for index, layer in enumerate(model.classifier):
            if isinstance(layer, torch.nn.Linear):
                sides = (layer.in_features, layer.out_features)
                sides = (hidden if side == 4096 else side for side in sides)
                model.classifier[index] = torch.nn.Linear(*sides)
    if lrn:
        # Krizhevsky et al. 2012: k = 2, n = 5, alpha = 1e-4, which torch divides by n
        norm = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        model.features[1] = torch.nn.Sequential(model.features[1], norm)
    if pointwise:
        layers = list(model.features)
        for index in [k - 2 for k, x in enumerate(layers) if isinstance(x, torch.nn.MaxPool2d)][2:]:
            width = layers[index].out_channels
            model.features[index] = torch.nn.Conv2d(width, width, 1)
    return model


def from_timm(name: str, *, channel_multiplier: float = 1.0, **fields) -> torch.nn.Module:
    """A model of timm; MobileNets of widths that timm has under no name."""
    if channel_multiplier != 1.0:
        families = timm.models.efficientnet
        generate = dict(
            mobilenetv1_100=families._gen_mobilenet_v1, mobilenetv2_100=families._gen_mobilenet_v2
        )[name]
        return generate(name, channel_multiplier=channel_multiplier, **fields)
    return timm.create_model(name, pretrained=False, **fields)


def from_pytorchvideo(name: str, *, depths: tuple[int, ...] = (), **fields) -> torch.nn.Module:
    """A model of pytorchvideo; with other `depths`, for clips of 16 frames of 32 x 32."""
    if not depths:
        return getattr(pytorchvideo.models.hub, name)(**fields)
    module = pytorchvideo.models.slowfast
    if name == "slow_r50":
        module = pytorchvideo.models.resnet
        fields |= dict(stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(4, 1, 1))
    with unittest.mock.patch.dict(module._MODEL_STAGE_DEPTH, {50: depths}):
        return (
            module.create_resnet(**fields)
            if name == "slow_r50"
            else module.create_slowfast(**fields, head_pool_kernel_sizes=((4, 1, 1), (16, 1, 1)))
        )


BUILDERS = {
    "torchvision": from_torchvision,
    "timm": from_timm,
    "pytorchvideo": from_pytorchvideo,
}


def build(case: Case) -> torch.nn.Module:
    """The reference, filled by name, with nothing in it that draws."""
    model = BUILDERS[case.source](case.reference, **case.reference_fields)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    state = {
        name: torch.from_numpy(fill(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def describe(model: torch.nn.Module) -> np.ndarray:
    parameters = {name for name, _ in model.named_parameters()}
    lines = [
        f"{name} {','.join(map(str, value.shape))} {'p' if name in parameters else 'b'}"
        for name, value in model.state_dict().items()
    ]
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def moments(x: torch.Tensor) -> list[float]:
    return [x.double().mean().item(), x.double().std(correction=0).item()]


def inputs(case: Case, dtype: torch.dtype = torch.float32) -> torch.Tensor | list[torch.Tensor]:
    """What the reference is given: of SlowFast both pathways' frames."""
    x = clip(case.size, case.frames) if case.frames else image(case.size)
    x = torch.from_numpy(x).to(dtype)
    if not case.reference.startswith("slowfast"):
        return x
    alpha = case.fields.get("alpha", 4)
    kept = torch.linspace(0, case.frames - 1, case.frames // alpha).long()
    return [x.index_select(2, kept), x]


def evaluate(case: Case, model: torch.nn.Module) -> dict[str, np.ndarray]:
    found = {}

    def keep(stage: str):
        def hook(module, inputs, output):
            # tokens [B, L, D] of a square image, without the class token where there is one
            tokens = output.ndim == 3
            first = output.shape[1] - math.isqrt(output.shape[1]) ** 2 if tokens else 0
            found[stage] = output[:, first:] if tokens else output

        return hook

    hooks = [
        model.get_submodule(place).register_forward_hook(keep(stage))
        for stage, place in case.stages.items()
    ]
    with torch.no_grad():
        outputs = model.eval()(inputs(case))
    for hook in hooks:
        hook.remove()
    stages = [[moments(x) for x in found[stage]] for stage in case.stages]
    if isinstance(outputs, torch.Tensor):
        return dict(logits=outputs.numpy(), stages=np.array(stages))
    names = dict(out="logits", aux="auxiliary_logits")
    maps = {names[key]: x.permute(0, 2, 3, 1).numpy() for key, x in outputs.items()}
    return {key: x[:, ::GRID, ::GRID] for key, x in maps.items()} | dict(stages=np.array(stages))


def train(case: Case, model: torch.nn.Module) -> dict[str, np.ndarray]:
    model = model.double().train()
    outputs = model(inputs(case, torch.float64))
    cross_entropy = torch.nn.functional.cross_entropy
    if isinstance(outputs, torch.Tensor):
        loss = cross_entropy(outputs, torch.arange(len(outputs)))
    else:  # the auxiliary head's share is that of torchvision's references/segmentation
        wanted = torch.from_numpy(targets(case.size, outputs["out"].shape[1]))
        loss = cross_entropy(outputs["out"], wanted) + 0.5 * cross_entropy(outputs["aux"], wanted)
    loss.backward()
    parameters = {name for name, _ in model.named_parameters()}
    buffers = {k: v for k, v in model.state_dict().items() if k not in parameters}
    return dict(
        loss=np.array(loss.item()),
        gradients=np.array([p.grad.norm().item() for _, p in model.named_parameters()]),
        statistics=np.array([moments(b) for b in buffers.values() if b.is_floating_point()]),
    )


def compute(case: Case, *, live: bool) -> dict[str, np.ndarray]:
    """A case's golden arrays; the model is freed before the next is built."""
    torch.manual_seed(0)
    model = build(case)
    golden = dict(names=describe(model), **evaluate(case, model))
    if case.training is not None and (case.test_training or live):
        golden |= train(case, model)
    return golden


def report(path: pathlib.Path, golden: dict[str, np.ndarray]) -> None:
    """Activations that vanish, explode or do not tell the two images apart would prove little."""
    logits, deviation = golden["logits"], golden["stages"][..., 1]
    apart = np.abs(np.diff(logits, axis=0)).max() / np.abs(logits).max()
    print(
        f"{path.name}: {path.stat().st_size / 1000:.1f} kB; deviation of the stages "
        f"{deviation.min():.2g} to {deviation.max():.2g}, logits apart by {apart:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="variants; all of them where none is named")
    parser.add_argument("--live", action="store_true", help="also what is left to make parity")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    if arguments.live:
        names = ("torch", "torchvision", "timm", "pytorchvideo")
        versions = {name: importlib.metadata.version(name).split("+")[0] for name in names}
        (arguments.folder / "versions.json").write_text(json.dumps(versions))
    for case in CASES:
        if arguments.names and case.name not in arguments.names:
            continue
        if not (case.test or arguments.live):
            continue
        golden = compute(case, live=arguments.live)
        path = arguments.folder / f"{case.title}.npz"
        np.savez_compressed(path, **golden)
        report(path, golden)


if __name__ == "__main__":
    main()
