"""Runs in worker processes of this machine."""
