"""Compare a graph with the model that it was made from."""
