"""Where runs are computed: in this process, in worker processes of this machine, or in Slurm jobs."""

from harness.launch.inline import run_inline
from harness.launch.local.pool import default_slots, run_local
from harness.launch.queue import Event, Queue
from harness.launch.resources import Resources

__all__ = ["Event", "Queue", "Resources", "default_slots", "run_inline", "run_local"]
