"""How benchmarks measure: what is timed and how long, on which machine, and how it is kept."""
