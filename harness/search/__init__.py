"""Search over the cells of a study with Optuna: ask and tell by one coordinator, on the executors of a study."""

from harness.search.declaration import Rungs, Search, load_search

__all__ = ["Rungs", "Search", "load_search"]
