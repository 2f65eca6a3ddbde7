"""Masked-image-modelling pre-training: the model, the recipe, reconstructions."""
