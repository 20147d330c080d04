"""The number of CPUs that this process may use."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Count the CPUs that this process may use; where the system does not tell (macOS, Windows), all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
