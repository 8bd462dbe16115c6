"""What the numbers in a label map mean, and how to join classes."""
