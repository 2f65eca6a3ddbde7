"""Claims of a study: the cells they compare, verdicts, looks after more seeds."""
