"""Measure: every number with hardware, versions, threads and warm-up."""
