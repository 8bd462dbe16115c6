"""Write a bundle, and trace where it came from."""
