"""Sources that are rendered from real handwritten digits."""
