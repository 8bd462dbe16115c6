"""Adapt a model to target images, from the first look to the written run."""
