"""Sources of labeled images."""
