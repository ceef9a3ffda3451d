"""Image and video files: decoding, encoding, drawing."""
