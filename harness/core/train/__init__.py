"""The one training loop and its optimiser."""
