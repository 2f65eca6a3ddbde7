"""Tables of a report: cells over seeds, the paper's values, Markdown, CSV and LaTeX."""
