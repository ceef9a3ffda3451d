"""R-CNN of 2014 on blood cells, by all its stages."""

import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import zoo
from train import augment, loop, parallel, plots
from train import log as logs
from train import workdir as workdirs
from train.data import eval_batches, evaluation_split, open_boxes
from train.data.detection.selective_search import (
    SearchParameters,
    SourceWithProposals,
    attach_proposals,
    selective_search,
)
from train.data.disk_cache import cached_arrays
from train.optim import optimizers, schedules
from train.rcnn import box_regression, features, svm
from train.rcnn.detect import detections
from train.rcnn.regions import Regions, SampledRegions, WarpedRegions, collect_regions, recall
from train.rcnn.warp import mean_color
from train.recipes.finetune import load_start_weights
from train.run import Run, plan_steps
from train.tasks.classification import classification
from train.tasks.detection import detection
from zoo.canvas import Canvas
from zoo.preprocess import Preprocessing

CANVAS = Canvas((480, 640))
DEPTHS = (1, 2, 3)  # blocks of the small ResNet, that of the other recipes for blood cells
CONTEXT_PIXELS = 16 / 227  # of a warped region's side
EPOCH_REGIONS = 100  # batches
EVAL_REGIONS = 1024  # regions on which the CNN is measured while it trains
FEATURE_BATCH = 256  # regions
TIMED_IMAGES = 3  # pictures that are searched for the time that it takes
VARIANTS = ("softmax", "svm", "svm_moved")  # what scores regions, and whether their boxes move
DETECTION_KEYS = ("boxes", "scores", "labels", "valid")

log = logging.getLogger("train")
Arrays = Mapping[str, np.ndarray]


def script(
    *,
    workdir: Path,
    layout: parallel.Layout,
    source: str = "folder:bccd",
    model: str = "resnet18",
    width: int | None = 32,
    weights: str | None = None,
    image_size: int = 64,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    epochs: int = 8,
    seed: int = 0,
) -> None:
    """R-CNN on blood cells: selective search, a CNN on warped regions, SVMs, box regression.

    WORKDIR/cnn holds the CNN's training, features.npz what it says of the training regions,
    heads.npz the SVMs and the regression, found.npz the detections: each is made once, and an
    interrupted run goes on with the next. An epoch is 100 batches, a quarter of them objects.

    Command: python -m train rcnn_bccd --source folder:bccd
    As published: --model rcnn_alexnet --width None --image_size 227 --learning_rate 1e-3, and
    --weights with a classifier's, which the blood cells' small CNN here does without.
    Data: BCCD, 205 / 87 images of 640 x 480 in Pascal VOC's layout, 3 classes.
    Source: Girshick et al. 2014, Rich Feature Hierarchies for Accurate Object Detection, and the
    authors' code, but for the proposals, a quarter as many, and the CNN.
    Paper: AP50 on VOC 2007 test: fc7, fine-tuned, 54.2 %, with box regression 58.5 %.
    Ours: AP50 0.791 on the 87 validation images (platelets 0.637, red cells 0.744, white 0.992); the
    SVMs without the regression 0.776, the CNN's softmax 0.782; selective search covers 94 % of the
    objects. Seed 0, 8 epochs, 10 minutes beside another training, without the search (2 minutes).
    """
    knobs = dict(source=source, model=model, width=width, weights=weights, image_size=image_size)
    knobs |= dict(learning_rate=learning_rate, weight_decay=weight_decay)
    knobs |= dict(batch_size=batch_size, epochs=epochs)
    identity = {"recipe": Path(__file__).stem, "knobs": knobs, "seed": seed}
    if (finished := workdirs.claim_workdir(workdir, identity, layout)) is not None:
        logs.print_summary(f"{workdir} is finished", finished)
        return
    data = open_boxes(source, canvas=CANVAS, seed=seed)
    train, (held, *_) = (
        attach_proposals(data["train"]),
        map(attach_proposals, evaluation_split(data).values()),
    )
    fields = {} if width is None else {"width": width, "depths": DEPTHS}
    seen = zoo.model_card(model, **fields).preprocessing
    seen = seen._replace(size=(image_size,) * 2, crop=1.0)
    warped = partial(
        WarpedRegions,
        size=image_size,
        context=round(CONTEXT_PIXELS * image_size),
        fill=mean_color(seen.mean),
    )
    regions = collect_regions(train)
    drawn = SampledRegions(warped(train, regions), batch_size * EPOCH_REGIONS, batch_size)
    judged = SampledRegions(warped(held, collect_regions(held)), EVAL_REGIONS, batch_size)
    module, variables = load_start_weights(model, weights, num_classes=len(drawn.classes), **fields)
    run = fine_tuning_run(module, drawn, judged, preprocessing=seen, knobs=knobs)
    run = run._replace(variables=variables, name=model, seed=seed)
    if not loop.fit(run, workdir / "cnn", layout=layout, recipe=Path(__file__).stem, knobs=knobs):
        return  # interrupted
    cnn, variables = zoo.load_model(model, workdir / "cnn")
    describe = partial(
        features.extract_features, cnn, variables, preprocessing=seen, batch_size=FEATURE_BATCH
    )
    asked = warped(held, collect_regions(held, objects=False))
    found = run_stages(workdir, describe, warped(train, regions), asked)
    write_results(workdir, held, found, preprocessing=seen)


def run_stages(workdir: Path, describe: Any, learnt: WarpedRegions, asked: WarpedRegions) -> Arrays:
    """All that follows the CNN's training: regions to learn from, and regions asked -> `detect_all`'s."""
    keep = partial(cached_stage, workdir)
    said = keep("features", lambda: extract_training_features(describe, learnt))
    heads = keep("heads", lambda: fit_heads(said, learnt.regions))
    return keep("found", lambda: detect_all(describe, asked, heads))


def cached_stage(workdir: Path, name: str, compute: Any) -> dict[str, np.ndarray]:
    """WORKDIR/NAME.npz, read, or computed and written."""
    began = time.monotonic()
    found = cached_arrays(workdir / f"{name}.npz", compute, write=parallel.is_main())
    log.info("%s: %.0f s", name, time.monotonic() - began)
    return found


def fine_tuning_run(
    module: nn.Module,
    drawn: SampledRegions,
    judged: SampledRegions,
    *,
    preprocessing: Preprocessing,
    knobs: Mapping[str, Any],
) -> Run:
    """The CNN's training as a classifier of regions, its classes after the background."""
    batch, epochs = knobs["batch_size"], knobs["epochs"]
    _, steps = plan_steps(drawn, batch_size=batch, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(knobs["learning_rate"], steps=steps), steps // 20)
    decay = knobs["weight_decay"]
    return Run(
        model=module,
        task=classification(
            preprocessing=preprocessing,
            classes=drawn.classes,
            augment=augment.images(augment.flip),
        ),
        train=drawn,
        evaluate={"val": judged},
        optimizer=optimizers.create_optimizer("momentum", rate, weight_decay=decay),
        epochs=epochs,
        batch_size=batch,
        preprocessing=preprocessing,
    )


def extract_training_features(describe: Any, warped: WarpedRegions) -> Arrays:
    """-> "code" [R, D] of all regions; "map" [N, M] of those at "near" [N], that learn a box."""
    near = np.flatnonzero(warped.regions.iou.max(1) >= box_regression.MIN_IOU)
    codes, maps, at = [], [], 0
    for part in describe(warped):
        count = len(part["code"])
        codes.append(part["code"])
        maps.append(part["map"][near[(near >= at) & (near < at + count)] - at])
        at += count
    return {"code": np.concatenate(codes), "map": np.concatenate(maps), "near": near}


def fit_heads(said: Arrays, regions: Regions) -> Arrays:
    """-> the fields of Machines, and those of Regressor after "box_"."""
    near = said["near"]
    iou = np.where(regions.crowd[:, None], 1.0, regions.iou)  # no negatives
    machines, kept = svm.train_svms(said["code"], image=regions.image, iou=iou, truth=regions.truth)
    log.info("hard negatives of each class: %s", ", ".join(map(str, kept)))
    boxes = box_regression.fit_boxes(
        said["map"], box=regions.box[near], iou=regions.iou[near], nearest=regions.nearest[near]
    )
    own = {f"box_{name}": value for name, value in boxes._asdict().items()}
    return {**machines._asdict(), **own}


def detect_all(describe: Any, warped: WarpedRegions, heads: Arrays) -> Arrays:
    """-> detections by the CNN's own classifier, by SVMs, and by these with moved boxes.

    WAY_boxes [I, 100, 4] ... as `detections` has them, and seconds_PART [], for a picture.
    """
    machines = svm.LinearSVMs(*(heads[name] for name in svm.LinearSVMs._fields))
    regressor = box_regression.Regressor(
        *(heads[f"box_{name}"] for name in box_regression.Regressor._fields)
    )
    held: Any = warped.source  # the pictures, with their proposals
    pictures = [held[i] for i in np.linspace(0, len(held) - 1, TIMED_IMAGES, dtype=int)]
    times = [time.monotonic()]
    for example in pictures:
        height, width = example["size"].tolist()
        selective_search(example["image"][:height, :width], SearchParameters())
    times.append(time.monotonic())
    parts = list(describe(warped))
    times.append(time.monotonic())
    code, maps, logits = (np.concatenate([p[n] for p in parts]) for n in ("code", "map", "logits"))
    box, image = warped.regions.box, warped.regions.image
    still = np.repeat(box[:, None], len(held.classes), 1)
    found: dict[str, Any] = {}
    ways = {"softmax": (np.asarray(jax.nn.softmax(logits))[:, 1:], still)}
    ways["svm"] = (svm.svm_scores(machines, code), still)
    began = time.monotonic()
    ways["svm_moved"] = (ways["svm"][0], box_regression.apply_regressor(regressor, maps, box))
    for way, (scores, boxes) in ways.items():
        each = detections(held, image=image, scores=scores, boxes=boxes)
        found |= {f"{way}_{name}": value for name, value in each.items()}
    found["seconds_proposals"] = np.float64((times[1] - times[0]) / TIMED_IMAGES)
    found["seconds_cnn"] = np.float64((times[2] - times[1]) / len(held))
    found["seconds_heads"] = np.float64((time.monotonic() - began) / len(held) / len(ways))
    return found


def write_results(
    workdir: Path, held: SourceWithProposals, found: Arrays, *, preprocessing: Preprocessing
) -> None:
    """Measures each way as the other detectors are measured; writes results.csv and the pictures."""
    task = detection(preprocessing=preprocessing, classes=held.classes, loss=zero_loss, truth=True)
    batches = list(eval_batches(held, batch_size=8))
    results: dict[str, float] = {"proposals/recall": recall(held)}
    for way in VARIANTS:
        outputs = [
            {
                name: found[f"{way}_{name}"].take(b["index"], 0, mode="clip")
                for name in DETECTION_KEYS
            }
            for b in batches
        ]
        measured = [
            jax.tree.map(np.asarray, task.measure(lambda *_, out=out: out, batch))
            for batch, out in zip(batches, outputs, strict=True)
        ]
        figures = task.summarize(measured)
        results |= {f"{way}/{name}": value for name, value in figures.items()}
    for part in ("proposals", "cnn", "heads"):
        results[f"{part}/seconds"] = float(found[f"seconds_{part}"])
    if parallel.is_main():
        lines = ["figure,value", *(f"{name},{value:.4f}" for name, value in results.items())]
        plots.save_plot("\n".join(lines) + "\n", workdir / "results.csv")
        seen = jax.tree.map(
            lambda *parts: np.concatenate(parts), *zip(batches, outputs, strict=True)
        )
        whole, shown = jax.tree.map(lambda x: x[seen[0]["valid"]], seen)
        for name, drawing in task.render(whole, shown, measured).items():
            plots.save_plot(drawing, workdir / name)
        workdirs.mark_finished(workdir, results)
        logs.print_summary(f"{workdir}: AP50, recall at 0.5, seconds for a picture", results)


def zero_loss(outputs: Any, batch: Any) -> dict[str, Any]:
    """No loss: what is measured here has been trained."""
    return {}
