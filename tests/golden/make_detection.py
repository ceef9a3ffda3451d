"""Golden files of Faster R-CNN out of torchvision: `python -m tests.golden.make_detection`.

Needs what tests.golden.make needs. Evaluation hangs on decisions: before it writes, this checks
that none of them lies within MARGIN of its threshold, and says how near the nearest one is.
"""

import contextlib
import importlib
import math
import sys

with contextlib.suppress(ImportError):
    importlib.import_module("torchvision_cpu")
import numpy as np
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, box_iou, poolers
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tests.golden.cases import Case
from tests.golden.compare import FOLDER
from tests.golden.detection import EVALUATED, SIZES, TRAINED, TRUTH, filled, parts, pictures
from tests.golden.make import describe

MARGIN = 1e-4
APART = 1e-5  # of scores that are neighbors in an order


roi_align = sys.modules["torchvision.ops.roi_align"]
interpolate = roi_align._bilinear_interpolate


def within(features, batch, y, x, ymask, xmask):
    """What torchvision's Python forgets and its C++ does: samples outside of the map are 0."""
    height, width = features.shape[2:]
    inside = [(at >= -1) & (at <= side) for at, side in ((y, height), (x, width))]
    inside = inside[0][:, None, :, None, :, None] & inside[1][:, None, None, :, None, :]
    return interpolate(features, batch, y, x, ymask, xmask) * inside


def align(features, rois, output_size, spatial_scale, sampling_ratio):
    """RoIAlign by torchvision's Python, which has a gradient where its C++ is not there."""
    plain = roi_align._roi_align.__wrapped__  # not compiled
    return plain(features, rois, spatial_scale, *output_size, sampling_ratio, False)


roi_align._bilinear_interpolate = within
poolers.roi_align = align


def build(case: Case) -> torch.nn.Module:
    """torchvision's net, frozen norms without epsilon as its published weights want them."""
    small = "depths" in case.reference_fields
    depths = case.reference_fields.get("depths", (3, 4, 6, 3))
    width, hidden = case.fields.get("width", 256), case.fields.get("hidden", 1024)
    outputs = case.fields.get("num_classes", 90) + 1
    block = BasicBlock if small else Bottleneck
    stages = len(depths)
    trunk = ResNet(block, [*depths, 1, 1][:4], norm_layer=FrozenBatchNorm2d)
    backbone = BackboneWithFPN(
        trunk,
        {f"layer{k}": str(k - 1) for k in range(1, stages + 1)},
        [64 * block.expansion * 2**k for k in range(stages)],
        width,
        LastLevelMaxPool(),
    )
    before, after = case.fields["before_nms"], case.fields["after_nms"]
    sizes = case.fields.get("sizes", ((32,), (64,), (128,), (256,), (512,)))
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        box_roi_pool=poolers.MultiScaleRoIAlign([str(k) for k in range(stages)], 7, 2),
        box_head=TwoMLPHead(width * 49, hidden),
        box_predictor=FastRCNNPredictor(hidden, outputs),
        rpn_pre_nms_top_n_train=before[0],
        rpn_pre_nms_top_n_test=before[1],
        rpn_post_nms_top_n_train=after[0],
        rpn_post_nms_top_n_test=after[1],
        rpn_batch_size_per_image=case.fields.get("anchor_count", 256),
        box_batch_size_per_image=case.fields.get("box_batch_size_per_image", 512),
        box_detections_per_img=case.fields.get("detections", 100),
    )
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    state = model.state_dict()
    state = {n: torch.from_numpy(filled(n, tuple(value.shape))) for n, value in state.items()}
    model.load_state_dict(state)
    return model


def canvases(dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.array(pictures(np.float32))).to(dtype).permute(0, 3, 1, 2)


def pad(rows: torch.Tensor, count: int) -> np.ndarray:
    wanted = np.zeros((count, *rows.shape[1:]), rows.numpy().dtype)
    wanted[: len(rows)] = rows.numpy()
    return wanted


def evaluate(model: torch.nn.Module) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What a file holds, and the margin of each kind of decision."""
    model.eval()
    images = ImageList(canvases(torch.float32), list(SIZES))
    count, most = EVALUATED.fields["after_nms"][1], EVALUATED.fields["detections"]
    with torch.no_grad():
        levels = model.backbone(images.tensors)
        logits, deltas = model.rpn.head(list(levels.values()))
        anchors = model.rpn.anchor_generator(images, list(levels.values()))
        proposals, _ = model.rpn(images, levels)
        pooled = model.roi_heads.box_roi_pool(levels, proposals, images.image_sizes)
        scores, moves = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        found, _ = model.roi_heads(levels, proposals, images.image_sizes)
    split = [len(rows) for rows in proposals]
    each = [torch.cat([x[i].permute(1, 2, 0).reshape(-1) for x in logits]) for i in range(2)]
    margins = Margins()
    for number in range(2):
        counts = [x[number].numel() for x in logits]
        flat = torch.cat([x[number].permute(1, 2, 0).reshape(-1, 4) for x in deltas])
        boxes = model.rpn.box_coder.decode(flat, [anchors[number]])[:, 0]
        margins.of_proposals(each[number].split(counts), boxes.split(counts), SIZES[number])
        margins.of_levels(proposals[number])
        own = scores.split(split)[number].softmax(-1)
        placed = model.roi_heads.box_coder.decode(moves.split(split)[number], [proposals[number]])
        margins.of_detections(own, placed, SIZES[number])
    outputs = {
        "levels": [[x.numpy() for x in level.permute(0, 2, 3, 1)] for level in levels.values()],
        "rpn_logits": np.stack([x.numpy() for x in each]),
        "rpn_deltas": np.stack(
            [
                torch.cat([x[i].permute(1, 2, 0).reshape(-1, 4) for x in deltas]).numpy()
                for i in range(2)
            ]
        ),
        "proposals": np.stack([pad(x, count) for x in proposals]),
        "proposal_valid": np.stack([np.arange(count) < len(x) for x in proposals]),
        "roi_logits": np.stack([pad(x, count) for x in scores.split(split)]),
        "roi_deltas": np.stack([pad(x.reshape(len(x), -1, 4), count) for x in moves.split(split)]),
        "boxes": np.stack([pad(x["boxes"], most) for x in found]),
        "scores": np.stack([pad(x["scores"], most) for x in found]),
        "labels": np.stack([pad(x["labels"] - 1, most) for x in found]),
        "valid": np.stack([np.arange(most) < len(x["labels"]) for x in found]),
    }
    print("proposals", split, "detections", [len(x["labels"]) for x in found])
    return parts(outputs), margins.least


class Margins:
    """How near the nearest decision of each kind is to its threshold."""

    def __init__(self) -> None:
        self.least: dict[str, float] = {}

    def add(self, name: str, distances: torch.Tensor) -> None:
        distances = distances[torch.isfinite(distances)]
        if distances.numel():
            self.least[name] = min(self.least.get(name, math.inf), distances.abs().min().item())

    def suppression(self, name: str, boxes, scores, groups, threshold: float) -> list[int]:
        """Greedy, noting each overlap with a box that is kept; rows that are left, best first."""
        order, kept = scores.argsort(descending=True).tolist(), []
        iou = box_iou(boxes, boxes)
        while order:
            best, *rest = order
            kept.append(best)
            rivals = [k for k in rest if groups[k] == groups[best]]
            self.add(name, iou[best, rivals] - threshold)
            order = [k for k in rest if not (k in rivals and iou[best, k] > threshold)]
        return kept

    def order(self, name: str, scores: torch.Tensor) -> None:
        self.add(name, scores.sort(descending=True).values.diff())

    def of_proposals(self, logits, boxes, size) -> None:
        before, after = (EVALUATED.fields[key][1] for key in ("before_nms", "after_nms"))
        left = []
        for own, places in zip(logits, boxes, strict=True):
            ranked = own.sort(descending=True)
            if len(own) > before:
                self.add("cut", ranked.values[before - 1] - ranked.values[before])
            top = ranked.indices[:before]
            self.order("order", own[top])
            places = clipped(places[top], size)
            self.add("side", (places[:, 2:] - places[:, :2]).min(1).values - 1e-3)
            whole = (places[:, 2:] - places[:, :2]).min(1).values >= 1e-3
            own, places = own[top][whole], places[whole]
            rows = self.suppression("proposal IoU", places, own, [0] * len(own), 0.7)
            left.append(own[rows].sigmoid())
        ranked = torch.cat(left).sort(descending=True).values
        self.order("order of proposals", ranked[: after + 1])
        self.add("cut of proposals", ranked[after - 1 : after] - ranked[after : after + 1])

    def of_levels(self, boxes) -> None:
        sides = boxes[:, 2:] - boxes[:, :2]
        level = 4 + torch.log2(sides.prod(1).sqrt() / 224) + 1e-6
        inner = level.clamp(2, 5)  # beyond them nothing is decided
        self.add("level", (level - level.round())[(inner.round() > 2) & (inner.round() <= 5)])

    def of_detections(self, scores, boxes, size) -> None:
        most = EVALUATED.fields["detections"]
        self.add("score", scores[:, 1:] - 0.05)
        rows, labels = torch.where(scores[:, 1:] > 0.05)
        own, places = scores[rows, labels + 1], clipped(boxes[rows, labels + 1], size)
        self.add("side", (places[:, 2:] - places[:, :2]).min(1).values - 1e-2)
        kept = self.suppression("IoU", places, own, labels.tolist(), 0.5)
        self.order("order of detections", own[kept][: most + 1])
        if len(kept) > most:
            self.add("cut of detections", own[kept[most - 1]] - own[kept[most]])


def clipped(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width = size
    return torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))


def train(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Each picture's losses, as a batch of its own, and the gradients of their sum."""
    model = model.double().train()
    names = dict(
        loss_objectness="rpn_objectness",
        loss_rpn_box_reg="rpn_boxes",
        loss_classifier="roi_classes",
        loss_box_reg="roi_boxes",
    )
    found = {name: [] for name in names.values()}
    total = torch.zeros((), dtype=torch.float64)
    for number, canvas in enumerate(canvases(torch.float64)):
        rows = torch.tensor(TRUTH["box_valid"][number])
        truth = {
            "boxes": torch.tensor(TRUTH["boxes"][number], dtype=torch.float64)[rows],
            "labels": torch.tensor(TRUTH["labels"][number])[rows] + 1,
        }
        images = ImageList(canvas[None], [SIZES[number]])
        levels = model.backbone(images.tensors)
        proposals, losses = model.rpn(images, levels, [truth])
        _, more = model.roi_heads(levels, proposals, images.image_sizes, [truth])
        losses |= more
        for key, name in names.items():
            found[name].append(losses[key].item())
        total = total + sum(losses.values())
    total.backward()
    gradients = np.array([p.grad.norm().item() for _, p in model.named_parameters()])
    return {name: np.array(values) for name, values in found.items()} | {"gradients": gradients}


def write(case: Case, golden: dict[str, np.ndarray]) -> None:
    path = FOLDER / f"{case.title}.npz"
    np.savez_compressed(path, **golden)
    print(f"{path.name}: {path.stat().st_size / 1000:.1f} kB", flush=True)


def main() -> None:
    model = build(EVALUATED)
    golden, margins = evaluate(model)
    print("; ".join(f"{name} {margin:.1e}" for name, margin in margins.items()))
    near = {k: m for k, m in margins.items() if m < (APART if k.startswith("order") else MARGIN)}
    if near:
        raise SystemExit(f"decisions too near to their thresholds: {near}; change SCALES")
    write(EVALUATED, {"names": describe(model), **golden})
    model = build(TRAINED)
    names = describe(model)
    golden = train(model)
    print({name: values.tolist() for name, values in golden.items() if name != "gradients"})
    write(TRAINED, {"names": names, **golden})


if __name__ == "__main__":
    main()
