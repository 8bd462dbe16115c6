"""How time and memory grow: with images, streams, input size and classes."""
