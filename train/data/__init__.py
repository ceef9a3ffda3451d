"""From files to batches on the host: sources with random access, and batches of fixed shape."""

from train.data.balance import balance, inverse_frequency
from train.data.batches import eval_batches, train_batches
from train.data.classification.digits import cache_folder
from train.data.classification.imagenet_pipeline import held_out, open_cropped
from train.data.classification.open import open_source, split
from train.data.detection.open import open_boxes
from train.data.image_files import Crop
from train.data.segmentation.masked_images import with_weights
from train.data.segmentation.open import open_masks
from train.data.source import joined, labels_of
from train.data.video.open import open_clips

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
