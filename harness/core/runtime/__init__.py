"""What every room of core stands on: keyed randomness, processes, precision, the session of a run."""
