"""Evaluations of an encoder: fine-tuning, probe, nearest neighbours, segmentation, detection, a user's own."""
