"""Sources of images with masks."""
