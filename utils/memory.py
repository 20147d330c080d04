"""Peak memory."""

from __future__ import annotations

import sys

import torch

MIB = 2**20


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the peak memory so far, of tensors on a GPU or of the process on a CPU, in MiB; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        import resource
    except ImportError:  # the system is not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere
