"""The peak arithmetic rate of a device: published for GPUs, measured for processors."""

from __future__ import annotations

import re
from functools import cache

import torch

from tools.benchmark.timing import compare

GPUS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bf16 or fp16 operations per second with float32 sums, from NVIDIA's data sheets; the first match counts.

Names match as whole words: an A10G is no A10, and an RTX A1000 is no A100."""
SIDE = {"cpu": 1024, "cuda": 8192}
DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def published_flops(device: torch.device) -> float | None:
    """Look up the operations per second of a GPU in half precision; None for an unknown GPU or a processor."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for gpu, flops in GPUS.items() if re.search(rf"\b{gpu}\b", name)), None)


@cache
def peak_flops(device: torch.device, amp: str) -> float:
    """Return the operations per second in precision `amp` (SOLVER.AMP), measured unless they are published."""
    published = published_flops(device)
    if published and amp != "off":
        return published
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(DTYPES[amp]) for _ in range(2))
    seconds = compare({"product": lambda: a @ b}, device, repeats=10)["product"].seconds
    return 2 * side**3 / min(seconds)
