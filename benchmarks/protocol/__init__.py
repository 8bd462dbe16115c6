"""Published rows on the data sets of their papers: train, adapt, score, compare."""
