"""Figures of a report: what they show, and how it is drawn. The only room that loads Matplotlib."""
