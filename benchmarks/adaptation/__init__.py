"""Accuracy and speed of the adaptation methods on tasks with labels."""
