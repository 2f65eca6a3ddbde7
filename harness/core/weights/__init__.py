"""Checkpoints, the weights of finished runs, and the formats of other programs."""
