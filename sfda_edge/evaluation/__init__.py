"""Score a model on labelled images."""
