"""Build TensorRT engines from a bundle's graph."""
