"""torch's side of the comparison: torchvision's, timm's or pytorchvideo's model, with the same weights."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from train.bench.programs import MOMENTUM, RATE
from zoo.models.slowfast import slow_frames
from zoo.pretrained import PYTORCHVIDEO, TIMM

ALPHA = 4  # of pytorchvideo's SlowFast: every how many frames the Slow pathway sees one


def import_torch() -> tuple[Any, Any]:
    """torch and torchvision, or ValueError in one line where they do not import."""
    with contextlib.suppress(ImportError):  # declares torchvision's operators to a CPU torch
        importlib.import_module("torchvision_cpu")
    try:
        return importlib.import_module("torch"), importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # the latter: torchvision of another torch
        raise ValueError(
            f"--against torch needs torch and torchvision ({error}): pip install 'flax-zoo[parity]'"
        ) from None


def is_video_model(name: str, **fields: Any) -> Any:
    """pytorchvideo's model `name`, for clips of any size."""
    pool = importlib.import_module("torch").nn.AdaptiveAvgPool3d
    build = getattr(importlib.import_module("pytorchvideo.models.hub"), name)
    return build(model_num_class=fields["num_classes"], head_pool=pool)


class Reference:
    """torchvision's model `name`, timm's or pytorchvideo's, in channels-last memory, without dropout."""

    def __init__(self, name: str, *, classes: int, half: bool, side: int) -> None:
        self.torch, torchvision = import_torch()
        size = {"torchvision": "image_size", "timm": "img_size"}
        if name in torchvision.models.list_models():
            source, build, theirs = "torchvision", torchvision.models.get_model, name
        elif name in TIMM:
            source, build = "timm", importlib.import_module("timm").create_model
            theirs = TIMM[name][0].partition(".")[0]
        elif name in PYTORCHVIDEO:
            source, build, theirs = "pytorchvideo", is_video_model, name
        else:
            raise ValueError(
                f"neither torchvision nor timm nor pytorchvideo has {name}, to compare with"
            )
        sized = {size[source]: side} if name.startswith("vit") else {}
        model: Any = build(theirs, num_classes=classes, **sized)
        for layer in model.modules():
            if isinstance(layer, self.torch.nn.Dropout):
                layer.p = 0.0
        for weight in model.parameters():  # ViT's head starts at zero: no logits to compare
            if weight.ndim > 1 and not weight.any():
                self.torch.nn.init.normal_(weight, std=0.02)
        volumes = any(weight.ndim == 5 for weight in model.parameters())
        self.layout = self.torch.channels_last_3d if volumes else self.torch.channels_last
        self.model = model.to(memory_format=self.layout)
        self.two_paths = name.startswith("slowfast")
        self.half = half

    def tensors(self) -> dict[str, np.ndarray]:
        """The state dict: names to arrays."""
        return {name: value.numpy() for name, value in self.model.state_dict().items()}

    def picture(self, image: np.ndarray) -> Any:
        channels_first = self.torch.from_numpy(np.moveaxis(image, -1, 1).copy())
        if not self.two_paths:
            return channels_first.contiguous(memory_format=self.layout)
        kept = self.torch.tensor(slow_frames(image.shape[1], ALPHA))
        paths = (channels_first.index_select(2, kept), channels_first)
        return [path.contiguous(memory_format=self.layout) for path in paths]

    def cast(self) -> Any:
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.half)

    def logits(self, x: Any) -> Any:
        return self.model(list(x) if self.two_paths else x)  # pytorchvideo writes into the list

    def forward(self, image: np.ndarray) -> Callable[[], np.ndarray]:
        """Image [B, H, W, C] -> what evaluates the logits [B, K]."""
        x = self.picture(image)

        def run() -> np.ndarray:
            self.model.eval()
            with self.torch.inference_mode(), self.cast():
                return self.logits(x).float().numpy()

        return run

    def train(self, image: np.ndarray, label: np.ndarray) -> Callable[[], float]:
        """Image, label [B] -> what takes a step of momentum and gives its loss."""
        x, y = self.picture(image), self.torch.from_numpy(label.astype(np.int64))
        optimizer = self.torch.optim.SGD(self.model.parameters(), RATE, MOMENTUM)
        criterion = self.torch.nn.CrossEntropyLoss()

        def run() -> float:
            self.model.train()
            optimizer.zero_grad(set_to_none=True)
            with self.cast():
                loss = criterion(self.logits(x), y)
            loss.backward()
            optimizer.step()
            return float(loss)

        return run
