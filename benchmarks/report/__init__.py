"""One page of all results, and the figures that the README quotes."""
