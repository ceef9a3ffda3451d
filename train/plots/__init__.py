"""Figures of a run, drawn without a display."""

from train.plots.boxes import Frame, plot_boxes, plot_precision_recall
from train.plots.clips import plot_clips
from train.plots.confused import plot_confusion
from train.plots.files import save_plot
from train.plots.grids import figure_of_canvas, plot_images, plot_strips, tile_images
from train.plots.history import plot_curves
from train.plots.scenes import plot_masks

__all__ = [
    "Frame",
    "plot_clips",
    "plot_confusion",
    "plot_curves",
    "plot_boxes",
    "plot_images",
    "plot_precision_recall",
    "save_plot",
    "plot_masks",
    "plot_strips",
    "tile_images",
    "figure_of_canvas",
]
