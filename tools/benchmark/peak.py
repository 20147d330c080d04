"""The arithmetic rate that a device reaches in large matrix products, which a step is compared with."""

from __future__ import annotations

from functools import cache

import torch

from engine.precision import resolve_precision
from tools.benchmark.timing import compare

SIDE = {"cpu": 1024, "cuda": 8192}


@cache
def peak_flops(device: torch.device, amp: str) -> float:
    """Measure the operations per second in precision `amp` (SOLVER.AMP); the best of ten products counts."""
    side = SIDE[device.type]
    dtype = resolve_precision(amp, device).dtype or torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = compare({"product": lambda: a @ b}, device, repeats=10)["product"].seconds
    return 2 * side**3 / min(seconds)


def faster_precision(device: torch.device) -> str:
    """Return 'bf16', or 'off' on a processor that computes faster in float32."""
    return max("bf16", "off", key=lambda amp: peak_flops(device, amp))


def precision_name(amp: str) -> str:
    """Name the precision `amp` (SOLVER.AMP) in a row."""
    return "fp32" if amp == "off" else amp
