"""Evaluations that predict at every pixel or around every object: segmentation, detection."""
