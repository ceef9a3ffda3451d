"""What is compared with which reference: one row a variant and source, plain data.

To add a family: its rows here, its rename rows in zoo/weights, `python -m tests.golden.make NAME ...`
in an environment with the extra `parity`, and commit the files that it writes.
"""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = types.MappingProxyType({})


class Case(NamedTuple):
    """A variant `name` here, and `reference`, its name in `source`.

    `stages` are {our output: the reference's module whose output it is}. `size` is the image's
    side in pixels. `fields` are the variant's fields here and `reference_fields` the arguments
    there; `training` those fields besides that leave nothing to chance while training, or None
    where training is not compared. `tolerance` is evaluation's. `test` False leaves the row to
    `make parity`, `test_training` False its training.
    """

    source: str
    name: str
    reference: str
    stages: dict[str, str]
    size: int = 64
    fields: Mapping[str, Any] = NOTHING
    reference_fields: Mapping[str, Any] = NOTHING
    training: Mapping[str, Any] | None = None
    tolerance: float = 1e-5
    test: bool = True
    test_training: bool = False

    @property
    def title(self) -> str:
        return f"{self.source}-{self.reference}"


RESNET = dict(stages={f"stage{k}": f"layer{k}" for k in (1, 2, 3, 4)}, training={})
RESNETS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2",
    "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip

CASES = [
    Case("torchvision", name, name, **RESNET, test_training=name in ("resnet18", "resnet50"))
    for name in RESNETS
]
CASES += [Case("timm", name, name, **RESNET) for name in RESNETS]
CASES += [Case("timm", "resnet50", "resnet50_gn", **RESNET, fields=dict(norm="group"))]
