"""From files to batches on the host: sources with random access, and batches of fixed shape."""

from train.data.batches import eval_batches, train_batches
from train.data.cropped import open_cropped
from train.data.digits import cache_folder
from train.data.sources import open_source, split

__all__ = ["cache_folder", "eval_batches", "open_cropped", "open_source", "split", "train_batches"]
