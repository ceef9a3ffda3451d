"""Flax modules and named choices that more than one family uses."""
