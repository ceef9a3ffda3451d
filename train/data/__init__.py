"""From files to batches on the host: sources with random access, and batches of fixed shape."""

from train.data.arrays import joined, labels_of
from train.data.balance import balance, inverse_frequency
from train.data.batches import eval_batches, train_batches
from train.data.boxes import open_boxes
from train.data.clip_sources import open_clips
from train.data.cropped import held_out, open_cropped
from train.data.digits import cache_folder
from train.data.masks import open_masks
from train.data.pairs import with_weights
from train.data.photographs import Crop
from train.data.sources import open_source, split

__all__ = [
    "Crop",
    "balance",
    "cache_folder",
    "eval_batches",
    "held_out",
    "inverse_frequency",
    "joined",
    "labels_of",
    "open_boxes",
    "open_clips",
    "open_cropped",
    "open_masks",
    "open_source",
    "split",
    "train_batches",
    "with_weights",
]
