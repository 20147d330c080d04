"""How much memory a process took at most."""

from __future__ import annotations

import sys

import torch

MIB = 2**20


def peak_memory_mib(device: torch.device) -> float | None:
    """The most that tensors took on a GPU, or that the process took on a CPU, so far, in MiB; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere
