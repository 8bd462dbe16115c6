"""What crosses to the device: a model, its manifest, its engines."""
