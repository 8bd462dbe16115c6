"""What accuracy costs in time: bundles of several networks, sizes and precisions on backends."""
