"""Ours beside the other ways to run the same weights on the same frames."""

OURS = "sfda-edge"
