"""From files to batches on the host: sources with random access, and batches of fixed shape."""

from train.data.balance import balance_classes, inverse_frequency
from train.data.batches import eval_batches, train_batches
from train.data.classification.imagenet_pipeline import evaluation_split, open_cropped
from train.data.classification.open import open_source, split_source
from train.data.detection.open import open_boxes
from train.data.image_files import Crop
from train.data.segmentation.masked_images import with_pixel_weights
from train.data.segmentation.open import open_masks
from train.data.source import concat_sources, labels_of
from train.data.video.open import open_clips

__all__ = [
    "Crop",
    "balance_classes",
    "eval_batches",
    "evaluation_split",
    "inverse_frequency",
    "concat_sources",
    "labels_of",
    "open_boxes",
    "open_clips",
    "open_cropped",
    "open_masks",
    "open_source",
    "split_source",
    "train_batches",
    "with_pixel_weights",
]
