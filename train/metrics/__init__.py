"""Metrics, one module per learning problem."""
