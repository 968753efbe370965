"""Training: what is trained, on what, the loop, its checkpoints, and looking at the model meanwhile."""
