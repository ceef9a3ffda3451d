"""Average precision by hand and against loops in plain Python; COCO's figures against pycocotools."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from train.metrics import detection as metrics

K = 3


def rows(*, detections, objects, **more):
    """[image -> [(box, label, score)]], [image -> [(box, label, crowd)]] -> rows, padded."""
    count = len(detections)
    most, n = (1 + max(map(len, lists)) for lists in (detections, objects))
    found = {
        "index": np.arange(count),
        "boxes": np.full((count, most, 4), np.nan, np.float32),
        "scores": np.full((count, most), np.nan, np.float32),
        "labels": np.zeros((count, most), np.int32),
        "valid": np.zeros((count, most), bool),
        "truth_boxes": np.zeros((count, n, 4), np.float32),
        "truth_labels": np.zeros((count, n), np.int32),
        "truth_valid": np.zeros((count, n), bool),
        "crowd": np.zeros((count, n), bool),
    }
    for i, (said, there) in enumerate(zip(detections, objects, strict=True)):
        for j, (box, label, score) in enumerate(said):
            for name, value in dict(boxes=box, labels=label, scores=score, valid=True).items():
                found[name][i, j] = value
        for j, (box, label, crowd) in enumerate(there):
            own = dict(truth_boxes=box, truth_labels=label, truth_valid=True, crowd=crowd)
            for name, value in own.items():
                found[name][i, j] = value
    return metrics.collect_rows([{**found, "seen": np.ones(count, bool), **more}])


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)
HALF = (0, 0, 10, 5)  # overlaps A by exactly a half
LESS = (0, 0, 10, 4.99)

# detections of one image, objects, AP by area, AP by 11 points
CASES = {
    "found": ([(A, 0, 0.9)], [(A, 0, 0)], 1.0, 1.0),
    "half found": ([(A, 0, 0.9)], [(A, 0, 0), (B, 0, 0)], 0.5, 6 / 11),
    "wrong first": ([(C, 0, 0.9), (A, 0, 0.8)], [(A, 0, 0)], 0.5, 0.5),
    "wrong last": ([(A, 0, 0.9), (C, 0, 0.8)], [(A, 0, 0)], 1.0, 1.0),
    "twice": ([(A, 0, 0.9), (A, 0, 0.8), (B, 0, 0.7)], [(A, 0, 0), (B, 0, 0)], 5 / 6, 28 / 33),
    "another class": ([(A, 1, 0.9)], [(A, 0, 0)], 0.0, 0.0),
    "a half suffices": ([(HALF, 0, 0.9)], [(A, 0, 0)], 1.0, 1.0),
    "less does not": ([(LESS, 0, 0.9)], [(A, 0, 0)], 0.0, 0.0),
    "crowd found": ([(B, 0, 0.9), (B, 0, 0.9), (A, 0, 0.8)], [(A, 0, 0), (B, 0, 1)], 1.0, 1.0),
    "crowd missed": ([(A, 0, 0.8)], [(A, 0, 0), (B, 0, 1)], 1.0, 1.0),
    "only crowd": ([(A, 0, 0.8)], [(A, 0, 1)], np.nan, np.nan),
    "nothing said": ([], [(A, 0, 0)], 0.0, 0.0),
    "nothing there": ([(A, 0, 0.9)], [], np.nan, np.nan),
    "not finite": ([(A, 0, np.nan), ((0, 0, np.inf, 9), 0, 0.9)], [(A, 0, 0)], 0.0, 0.0),
    "no area": ([((5, 5, 5, 5), 0, 0.9), (A, 0, 0.5)], [((5, 5, 5, 5), 0, 0)], 0.0, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case):
    said, there, area, points = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.voc_metrics(rows(detections=[said], objects=[there]), classes=K)
    np.testing.assert_allclose([found["ap50"], found["ap50_voc07"]], [area, points], rtol=1e-12)


def scenes(seed, *, images=30, side=200.0):
    """Objects, and detections that lie near them or anywhere, some twice; scores with ties."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for _ in range(images):
        corner = random.uniform(0, side, (random.integers(0, 7), 2))
        boxes = np.concatenate([corner, corner + random.uniform(4, 130, corner.shape)], 1)
        labels, crowd = random.integers(0, K, len(boxes)), random.random(len(boxes)) < 0.2
        objects.append(list(zip(boxes.tolist(), labels.tolist(), crowd.tolist(), strict=True)))
        near = [
            (np.float32(box) + random.normal(0, 1 + 0.05 * (box[2] - box[0]), 4), label)
            for box, label, _ in objects[-1]
            for _ in range(random.integers(0, 3))
        ]
        far = [((0, 0, 30, 40), random.integers(0, K)) for _ in range(random.integers(0, 3))]
        said = [(np.float32(b), int(k), float(random.integers(1, 20) / 20)) for b, k in near + far]
        detections.append(said)
    return detections, objects


def by_loops(detections, objects, label):
    """AP of a class as the development kit goes: detections one by one, objects one by one."""
    said = [(-s, i, b) for i, row in enumerate(detections) for b, k, s in row if k == label]
    taken, verdicts = set(), []
    for _, i, box in sorted(said, key=lambda row: row[0]):
        best, place = 0.0, None
        for n, (other, k, _) in enumerate(objects[i]):
            other = [float(np.float32(side)) for side in other]
            width = min(float(box[2]), other[2]) - max(float(box[0]), other[0])
            height = min(float(box[3]), other[3]) - max(float(box[1]), other[1])
            if k != label or width <= 0 or height <= 0:
                continue
            areas = [
                (float(b[2]) - float(b[0])) * (float(b[3]) - float(b[1])) for b in (box, other)
            ]
            overlap = width * height / (sum(areas) - width * height)
            if overlap > best:
                best, place = overlap, n
        if best >= 0.5 and objects[i][place][2]:
            continue
        verdicts.append(best >= 0.5 and (i, place) not in taken)
        taken |= {(i, place)} if best >= 0.5 else set()
    total = sum(k == label and not crowd for row in objects for _, k, crowd in row)
    recall, precision, hits = [], [], 0
    for number, true in enumerate(verdicts, 1):
        hits += true
        recall.append(hits / total)
        precision.append(hits / number)
    area, before = 0.0, 0.0
    for place, reached in enumerate(recall):
        area += (reached - before) * max(precision[place:])
        before = reached
    levels = [
        [p for r, p in zip(recall, precision, strict=True) if r >= t / 10 - 1e-9] for t in range(11)
    ]
    return area, sum(max(level, default=0) for level in levels) / 11


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed):
    detections, objects = scenes(seed)
    given = rows(detections=detections, objects=objects)
    judged = metrics.match_detections(given, classes=K)
    assert {-1, 0, 1} == set(np.unique(judged.verdict[given["valid"]]))
    figures = metrics.voc_per_class(given, judged)
    expected = np.array([by_loops(detections, objects, label) for label in range(K)])
    np.testing.assert_allclose(figures["ap50"], expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(figures["ap50_voc07"], expected[:, 1], rtol=1e-12)
    assert 0.05 < figures["ap50"].min() and figures["ap50"].max() < 0.9
    means = metrics.voc_metrics(given, classes=K)
    np.testing.assert_allclose([means["ap50"], means["ap50_voc07"]], expected.mean(0))


def test_eleven_points_are_whole_numbers():
    """3 of 10 objects are a recall of 0.3, whatever 3 * 0.1 is."""
    for found in range(11):
        true = np.ones(found, bool)
        ap = metrics.average_precision(true, 10, points=11)
        assert ap == pytest.approx((found + 1) / 11 if found else 0, rel=1e-12)


def test_batches_in_any_order_and_padding():
    detections, objects = scenes(7)
    whole = rows(detections=detections, objects=objects)
    parts = []
    for images in (range(20, 30), range(10), range(10, 20)):
        part = {name: value[list(images)] for name, value in whole.items()}
        padding = {name: np.ones_like(value[:3]) for name, value in part.items()}
        part = {name: np.concatenate([padding[name], value]) for name, value in part.items()}
        parts.append({**part, "seen": np.arange(13) >= 3})
    found = metrics.collect_rows(parts)
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("areas", [False, True])
def test_coco_is_pycocotools_s(areas):
    detections, objects = scenes(5)
    more = {}
    if areas:
        most = 1 + max(map(len, objects))
        more["area"] = np.random.default_rng(0).uniform(0, 20000, (len(objects), most))
    given = rows(detections=detections, objects=objects, **more)
    found = metrics.coco_metrics(given, classes=K)
    each = metrics.coco_per_class(given, classes=K)
    sides = lambda box: [*map(float, (box[0], box[1], box[2] - box[0], box[3] - box[1]))]
    told, said = [], []
    for i, row in enumerate(objects):
        for j, (box, label, crowd) in enumerate(row):
            sized = sides(np.float64(np.float32(box)))
            area = float(more["area"][i, j]) if areas else sized[2] * sized[3]
            known = dict(id=len(told) + 1, iscrowd=int(crowd), bbox=sized, area=area)
            told.append(dict(image_id=i, category_id=label, **known))
    for i, row in enumerate(detections):
        for box, label, score in row:
            sized = sides(np.float64(box))
            score = float(np.float32(score))
            said.append(dict(image_id=i, category_id=label, bbox=sized, score=score))
    truth = COCO()
    truth.dataset = dict(
        info={},
        images=[dict(id=i) for i in range(len(objects))],
        annotations=told,
        categories=[dict(id=k, name=str(k)) for k in range(K)],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        independent = COCOeval(truth, truth.loadRes(said), "bbox")
        independent.evaluate()
        independent.accumulate()
        independent.summarize()
    assert (independent.stats > 0).all() and independent.stats[0] < 0.9
    np.testing.assert_allclose([found[name] for name in metrics.COCO_NAMES], independent.stats)
    classes = independent.eval["precision"][:, :, :, 0, -1].mean((0, 1))
    np.testing.assert_allclose(each, classes)


def test_coco_without_detections_or_objects(capfd):
    there = rows(detections=[[]], objects=[[(A, 0, 0)]])
    found = metrics.coco_metrics(there, classes=K)
    assert found["ap"] == 0 and found["ar_100"] == 0 and np.isnan(found["ap_large"])
    nothing = metrics.coco_metrics(rows(detections=[[]], objects=[[]]), classes=K)
    assert np.isnan(list(nothing.values())).all() and tuple(nothing) == metrics.COCO_NAMES
    assert capfd.readouterr() == ("", "")
