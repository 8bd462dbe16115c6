"""Turn an adapted model into a bundle, and prove that it answers the same."""
