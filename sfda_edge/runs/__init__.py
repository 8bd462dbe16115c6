"""Run directories, their files, and what a long command shows."""
