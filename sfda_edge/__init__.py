"""Adapt a segmentation model to a new domain without its training data."""

__version__ = "0.1.0"
