"""Masks of units of an image: one function for each kind of mask. True = hidden."""
