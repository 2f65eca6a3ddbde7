"""Computation of runs with torch and timm. Nothing here knows of studies, executors or reports."""
