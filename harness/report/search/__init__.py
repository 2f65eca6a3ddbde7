"""Report of a search: numbers, figures and page."""
