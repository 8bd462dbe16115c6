"""Choose inputs, teachers and checkpoints without labels."""
