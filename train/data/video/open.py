"""The clips that a recipe's `source` names."""

import dataclasses
import difflib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from train.data import tfds as sets
from train.data.classification.folder import VALIDATION_FRACTION
from train.data.permutation import stratified_split
from train.data.source import Source, check_labels
from train.data.synthetic.moving_digits import open_moving_digits
from train.data.video.clip_files import Parts, find_csv_lists, find_ucf101_lists, find_video_folder
from train.data.video.clips import Clips, RecordStore, Sampling, VideoFileStore
from train.data.video.mirror_labels import mirror_label_map
from zoo.preprocess import Preprocessing, uncropped_size

logger = logging.getLogger("train")
CLIP_FORMS = {
    "moving_digits": "moving_digits",
    "folder": "folder:PATH",
    "csv": "csv:PATH",
    "ucf101": "ucf101:PATH or ucf101:PATH:SPLIT",
    "tfds": "tfds:NAME or tfds:NAME:CONFIG",
}
CLIP_LAYOUTS = {"folder": find_video_folder, "csv": find_csv_lists, "ucf101": find_ucf101_lists}


def open_clips(
    spec: str,
    preprocessing: Preprocessing,
    *,
    sides: tuple[int, int] | None = None,
    views: tuple[int, int] = (1, 1),
    seed: int = 0,
) -> Mapping[str, Source]:
    """ "moving_digits", "folder:PATH", "csv:PATH", "ucf101:PATH" or "tfds:NAME" -> {"train", ...}.

    Clips as the preprocessing says: `frames`, every `stride`-th, of its `size` in training, and in
    evaluation of the size that `preprocess` cuts without resizing. Examples: "video" [T, H, W, C] uint8,
    "label", of files also "group", the video's number (`train.data.video.clips.Clips`).

    sides: of training's short sides, in pixels, as (256, 320), and a random part; None: the center.
    views: clips and crops of each video in val and test, whose scores the task averages.
    seed: of a folder's validation part, where it has neither val nor test, and of moving_digits.

    Raises FileNotFoundError or ValueError in one line.

    >>> open_clips("moving_digit", Preprocessing((0.5,), (0.5,), (32, 32), frames=16))
    Traceback (most recent call last):
    ValueError: unknown source of clips moving_digit: did you mean moving_digits?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in CLIP_FORMS:
        near = difflib.get_close_matches(scheme, CLIP_FORMS, n=1)
        said = (
            f"did you mean {CLIP_FORMS[near[0]]}?"
            if near
            else f"choose of {', '.join(CLIP_FORMS.values())}"
        )
        raise ValueError(f"unknown source of clips {spec}: {said}")
    if bool(where) != (scheme != "moving_digits"):
        raise ValueError(f"source {spec}: expected the form {CLIP_FORMS[scheme]}")
    sampling = clip_sampling(preprocessing, sides=sides, views=views)
    if scheme == "moving_digits":
        size = (*preprocessing.size, len(preprocessing.mean))
        return open_moving_digits(frames=sampling.frames, size=size, seed=seed)
    if scheme == "tfds":
        return open_tfds_clips(where.replace(":", "/"), sampling)
    return clips_from_files(CLIP_LAYOUTS[scheme](where), sampling, name=spec, seed=seed)


def clip_sampling(
    preprocessing: Preprocessing, *, sides: tuple[int, int] | None, views: tuple[int, int]
) -> Sampling:
    """The sampling of both; raises ValueError in one line for what cannot be."""
    frames, stride, size = preprocessing.frames, preprocessing.stride, preprocessing.size
    channels = len(preprocessing.mean)
    if min(frames, stride) < 1 or channels not in (1, 3):
        raise ValueError(
            "clips need a preprocessing with frames and a stride of 1 or more and 1 or 3 channels; "
            f"got {frames}, {stride} and {channels}"
        )
    if sides is not None and not max(size) <= sides[0] <= sides[1]:
        raise ValueError(
            f"sides are two lengths, ascending, from {max(size)} on, the clip's; got {sides}"
        )
    if min(views) < 1 or views[1] not in (1, 3):
        raise ValueError(f"views are clips, 1 or more, and 1 or 3 crops; got {views}")
    whole = uncropped_size(preprocessing)[:2]
    return Sampling(frames, stride, (*size, channels), whole, sides, views)


def clips_from_files(found: Parts, sampling: Sampling, *, name: str, seed: int) -> dict[str, Clips]:
    """The parts of a layout as sources; a fifth of "train", by class, is "val" where it is alone."""
    parts, classes = found
    table = mirror_label_map(classes)
    sources = {
        part: Clips(
            VideoFileStore(tuple(files)),
            np.asarray(labels, np.int32),
            name,
            classes,
            sampling,
            table,
        )
        for part, (files, labels) in parts.items()
    }
    if len(sources) == 1:
        whole = sources["train"]
        held = max(1, round(VALIDATION_FRACTION * len(whole.store)))
        rest, out = stratified_split(whole.video_labels, held, seed=seed)
        logger.info(
            "%s has no val or test part: split by class and seed %d into %d training and %d "
            "validation videos",
            *(name, seed, len(rest), len(out)),
        )
        sources = {"train": whole.select(rest), "val": whole.select(out)}
    return require_train_split(sources)


def require_train_split(sources: dict[str, Clips]) -> dict[str, Clips]:
    """The sources, "train" with one view of each video, which it draws."""
    one = sources["train"].sampling._replace(views=(1, 1))
    return sources | {"train": dataclasses.replace(sources["train"], sampling=one)}


class SkipDecoding(tfds.decode.SkipDecoding):
    """Leaves the images of a sequence as the bytes of their files, which tfds's own cannot."""

    def decode_batch_example_np(self, example: Any) -> Any:
        return example


def open_tfds_clips(
    name: str, sampling: Sampling, *, data_dir: str | None = None
) -> dict[str, Clips]:
    """The set `NAME` or `NAME/CONFIG` with one video and one class label -> its parts.

    Prepared as `open_tfds` does it. A feature Video needs TensorFlow; a Sequence of Image does not.

    Raises ValueError that says what to do.
    """
    builder = sets.find_builder(name, data_dir)
    if not (builder.data_path / "dataset_info.json").exists():
        sets.prepare_set(builder, name)
    key, label = video_and_label_keys(builder.info, name)
    classes = tuple(builder.info.features[label].names)
    title = f"{builder.info.full_name} (TFDS)"
    sources = {}
    for split, names in sets.SPLIT_NAMES.items():
        for known in (known for known in names if known in builder.info.splits):
            records = sets.open_records(builder, known, **{key: SkipDecoding()})
            labels = np.array([record[label] for record in records], np.int32)
            check_labels(labels, classes, name=title)
            store = RecordStore(records, key, title, np.arange(len(labels)))
            sources[split] = Clips(
                store, labels, title, classes, sampling, mirror_label_map(classes)
            )
    if "train" not in sources:
        raise ValueError(f"tfds:{name} has no train split, but {', '.join(builder.info.splits)}")
    return require_train_split(sources)


def video_and_label_keys(info: Any, name: str) -> tuple[str, str]:
    """The names of the one video (or sequence of images) and the one class label."""
    features = dict(info.features)

    def is_of_images(feature: Any) -> bool:
        return isinstance(getattr(feature, "feature", None), tfds.features.Image)

    found = [key for key, feature in features.items() if is_of_images(feature)]
    labels = [key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if len(found) != 1 or len(labels) != 1:
        raise ValueError(
            f"tfds:{name} is no set of videos with one class label each; it has {', '.join(features)}"
        )
    return found[0], labels[0]
