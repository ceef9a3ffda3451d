"""Predictors: from files and arrays to typed results, one module per task."""
