"""What training steps are made of: optimizers, losses, augmentation, processes."""
