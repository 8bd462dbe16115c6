"""Reports: HTML pages and pictures of runs and evaluations."""
