"""Targets of the prediction, and how its error is counted: losses, contrastive losses."""
