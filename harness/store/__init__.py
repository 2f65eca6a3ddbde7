"""The store: one folder a run, atomic writes, fenced ownership, status read from files."""

from harness.store.attempt import Attempt, Superseded
from harness.store.layout import AttemptFolder, RunFolder
from harness.store.store import Result, State, Store, Word, open_store

__all__ = ["Attempt", "AttemptFolder", "Result", "RunFolder", "State", "Store", "Superseded", "Word", "open_store"]
