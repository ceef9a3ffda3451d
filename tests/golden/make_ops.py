"""Golden arrays out of torchvision's detection operators: `python -m tests.golden.make_ops`.

Needs the extra `parity` with torchvision's operators (where torch is a CPU build and torchvision is
not, a module `torchvision_cpu` on the path that supplies them). Writes one npz a file of zoo/ops
into tests/golden/ops; what the operators are given stands in places.py.
"""

import contextlib
import importlib
from collections.abc import Callable

with contextlib.suppress(ImportError):
    importlib.import_module("torchvision_cpu")
import numpy as np
import torch
from torchvision import ops
from torchvision.models.detection import _utils, anchor_utils, rpn

from tests.golden import roi_fixtures


def tensor(array: np.ndarray) -> torch.Tensor:
    """In float64, as all but decisions are compared."""
    return torch.tensor(array, dtype=torch.float64)


def boxes() -> dict[str, torch.Tensor]:
    a, b = (tensor(roi_fixtures.boxes(name, 12)) for name in "ab")
    found = {"clip": ops.clip_boxes_to_image(a, roi_fixtures.SIZE)}
    for name in ("box_iou", "generalized_box_iou", "distance_box_iou"):
        x = a.clone().requires_grad_()
        y = getattr(ops, name)(x, b)
        (y * tensor(roi_fixtures.slope(name, tuple(y.shape)))).sum().backward()
        found |= {name: y, f"{name} gradient": x.grad}
    coder = _utils.BoxCoder(roi_fixtures.WEIGHTS)
    found["encode"] = coder.encode_single(a, b)
    found["decode"] = coder.decode_single(found["encode"] * 4, b)
    return found


def anchors() -> dict[str, torch.Tensor]:
    generator = anchor_utils.AnchorGenerator(((32, 50),), ((0.5, 1.0, 2.0),))
    grid = generator.grid_anchors([[3, 2]], [[torch.tensor(16), torch.tensor(8)]])
    return {"cell": generator.cell_anchors[0], "grid": grid[0]}


def nms() -> dict[str, torch.Tensor]:
    found, scores, labels = map(torch.tensor, roi_fixtures.crowded())
    kept = {}
    for threshold in roi_fixtures.THRESHOLDS:
        kept[f"nms {threshold}"] = ops.nms(found, scores, threshold)
        kept[f"batched {threshold}"] = ops.batched_nms(found, scores, labels, threshold)
    return kept


def roi() -> dict[str, torch.Tensor]:
    regions = torch.cat(
        [torch.zeros(len(roi_fixtures.regions()), 1), tensor(roi_fixtures.regions())], 1
    )
    found = {}

    def compute(name: str, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x = tensor(roi_fixtures.features()).requires_grad_()
        y = f(x.permute(2, 0, 1)[None]).permute(0, 2, 3, 1)
        (y * tensor(roi_fixtures.slope(name, tuple(y.shape)))).sum().backward()
        found.update({name: y, f"{name} gradient": x.grad})

    for sampling, aligned in roi_fixtures.ROI_ALIGN:
        rest = (roi_fixtures.ROI_SIZE, roi_fixtures.ROI_SCALE, sampling, aligned)
        compute(f"align {sampling} {aligned}", lambda x, r=rest: ops.roi_align(x, regions, *r))
    compute(
        "pool", lambda x: ops.roi_pool(x, regions, roi_fixtures.ROI_SIZE, roi_fixtures.ROI_SCALE)
    )
    return found


def assign() -> dict[str, torch.Tensor]:
    iou = torch.tensor(roi_fixtures.overlaps())
    return {
        f"match {low_quality}": _utils.Matcher(*roi_fixtures.SHARES, low_quality)(iou)
        for low_quality in (False, True)
    }


def proposals() -> dict[str, torch.Tensor]:
    logits, deltas, starts = map(torch.tensor, roi_fixtures.levels())
    counts = (
        dict.fromkeys(("training", "testing"), n) for n in (roi_fixtures.BEFORE, roi_fixtures.AFTER)
    )
    network = rpn.RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, *counts, roi_fixtures.KEPT)
    decoded = network.box_coder.decode(deltas, [starts]).reshape(1, -1, 4)
    found = network.filter_proposals(
        decoded, logits[None], [roi_fixtures.SIZE], list(roi_fixtures.LEVELS)
    )
    return {"boxes": found[0][0], "scores": found[1][0]}


def smallest(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int16 if array.dtype == np.int64 else np.float32)


def main() -> None:
    roi_fixtures.FOLDER.mkdir(exist_ok=True)
    for make in (boxes, anchors, nms, roi, assign, proposals):
        path = roi_fixtures.FOLDER / f"{make.__name__}.npz"
        arrays = {name: smallest(each.detach().numpy()) for name, each in make().items()}
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
