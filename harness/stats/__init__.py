"""Models of cells and seeds, intervals and comparisons: arrays in, arrays out. It knows no study and no table."""
