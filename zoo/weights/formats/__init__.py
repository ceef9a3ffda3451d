"""Readers and writers of weight file formats."""
