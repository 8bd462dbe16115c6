"""Segment a live stream on the device. Needs numpy alone until a source or a backend is opened."""
