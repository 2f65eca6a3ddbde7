"""What masks and trained encoders are like, measured."""
