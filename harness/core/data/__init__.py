"""Data sets, the preparation of pictures, crops and flips, and the batches of training and testing."""
