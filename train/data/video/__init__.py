"""Sources of video clips."""
