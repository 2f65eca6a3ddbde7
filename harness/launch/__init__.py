"""Execution of runs: in this process, in worker processes of this machine, or in Slurm jobs."""

from harness.launch.executor import Executor, drive, open_executor
from harness.launch.inline import Inline
from harness.launch.local.pool import Local, default_slots
from harness.launch.queue import Event, Queue
from harness.launch.resources import Resources

__all__ = ["Event", "Executor", "Inline", "Local", "Queue", "Resources", "default_slots", "drive", "open_executor"]
