"""The store: one folder a run, atomic writes, fenced ownership, status read from files."""

from harness.store.attempt import Attempt, Superseded
from harness.store.layout import AttemptFolder, RunFolder
from harness.store.states import STATES, Result, State, StateName
from harness.store.store import Store, open_store

__all__ = [
    "STATES", "Attempt", "AttemptFolder", "Result", "RunFolder", "State", "StateName", "Store", "Superseded",
    "open_store",
]  # fmt: skip
