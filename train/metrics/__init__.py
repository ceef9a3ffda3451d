"""Metrics of classification, segmentation and detection."""
