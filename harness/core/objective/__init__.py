"""Targets of the prediction, and the losses between prediction and target."""
