"""Foundations of all rooms of core: keyed randomness, processes, precision, the session of a run."""
