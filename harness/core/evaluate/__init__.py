"""Evaluations of accuracy: fine-tuning, linear probe, nearest neighbours, a user's own."""
