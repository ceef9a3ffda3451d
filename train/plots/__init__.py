"""Pictures of a run, drawn without a display."""

from train.plots.boxes import Frame, framed, precision_recall
from train.plots.clips import clips
from train.plots.confused import confusion
from train.plots.files import save
from train.plots.grids import pictures, strips, tiles, whole
from train.plots.history import curves
from train.plots.scenes import scenes

__all__ = [
    "Frame",
    "clips",
    "confusion",
    "curves",
    "framed",
    "pictures",
    "precision_recall",
    "save",
    "scenes",
    "strips",
    "tiles",
    "whole",
]
