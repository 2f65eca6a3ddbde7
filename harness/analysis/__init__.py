"""Measurements of masks, and of trained models on a fixed sample of test images."""
