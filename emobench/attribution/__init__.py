"""Where a classifier looks: attention rollout of Vision Transformers, Grad-CAM of convolutional networks."""
