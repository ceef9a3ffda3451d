"""torch's side of the comparison: the same model of torchvision or timm, with the same weights."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from train.bench.programs import MOMENTUM, RATE
from zoo.published import TIMM


def load() -> tuple[Any, Any]:
    """torch and torchvision, or ValueError in one line where they do not import."""
    with contextlib.suppress(ImportError):  # declares torchvision's operators to a CPU torch
        importlib.import_module("torchvision_cpu")
    try:
        return importlib.import_module("torch"), importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # the latter: torchvision of another torch
        raise ValueError(
            f"--against torch needs torch and torchvision ({error}): pip install 'flax-zoo[parity]'"
        ) from None


class Reference:
    """torchvision's model `name`, or timm's, in channels-last memory, without dropout."""

    def __init__(self, name: str, *, classes: int, half: bool, side: int) -> None:
        self.torch, torchvision = load()
        size = {"torchvision": "image_size", "timm": "img_size"}
        if name in torchvision.models.list_models():
            source, build, theirs = "torchvision", torchvision.models.get_model, name
        elif name in TIMM:
            source, build = "timm", importlib.import_module("timm").create_model
            theirs = TIMM[name][0].partition(".")[0]
        else:
            raise ValueError(f"neither torchvision nor timm has {name}, to compare with")
        sized = {size[source]: side} if name.startswith("vit") else {}
        model: Any = build(theirs, num_classes=classes, **sized)
        for layer in model.modules():
            if isinstance(layer, self.torch.nn.Dropout):
                layer.p = 0.0
        for weight in model.parameters():  # ViT's head starts at zero: no logits to compare
            if weight.ndim > 1 and not weight.any():
                self.torch.nn.init.normal_(weight, std=0.02)
        self.model = model.to(memory_format=self.torch.channels_last)
        self.half = half

    def tensors(self) -> dict[str, np.ndarray]:
        """The state dict: names to arrays."""
        return {name: value.numpy() for name, value in self.model.state_dict().items()}

    def picture(self, image: np.ndarray) -> Any:
        channels_first = self.torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
        return channels_first.contiguous(memory_format=self.torch.channels_last)

    def cast(self) -> Any:
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.half)

    def forward(self, image: np.ndarray) -> Callable[[], np.ndarray]:
        """Image [B, H, W, C] -> what evaluates the logits [B, K]."""
        x = self.picture(image)

        def run() -> np.ndarray:
            self.model.eval()
            with self.torch.inference_mode(), self.cast():
                return self.model(x).float().numpy()

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
                loss = criterion(self.model(x), y)
            loss.backward()
            optimizer.step()
            return float(loss)

        return run
