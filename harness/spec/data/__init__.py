"""Data sets, and the digests of files that lie outside the store."""
