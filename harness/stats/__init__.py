"""Statistics on arrays: models of cells and seeds, intervals, comparisons, repeated looks. No studies, no pandas."""
