"""The most that a device computes in a second: published for cards, measured for processors."""

from __future__ import annotations

import re
import time
from functools import cached_property

import torch

CARDS = {
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
"""Dense bf16 or fp16 operations per second with float32 sums, from NVIDIA's data sheets; the first found holds.

Names count as whole words: an A10G is no A10, an RTX A1000 no A100."""
SIDE = {"cpu": 1024, "cuda": 8192}
DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Peak:
    """Peak of a device by precision (SOLVER.AMP's names)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._measured: dict[str, float] = {}

    @cached_property
    def published(self) -> float | None:
        """Of the card, if it is known."""
        if self.device.type != "cuda":
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((flops for card, flops in CARDS.items() if re.search(rf"\b{card}\b", name)), None)

    def flops(self, amp: str) -> float:
        """Operations per second; where it is not published, the best of several large matrix products."""
        if self.published and amp != "off":
            return self.published
        if amp not in self._measured:
            self._measured[amp] = _measure(self.device, DTYPES[amp])
        return self._measured[amp]

    def source(self) -> str:
        """Where the figures come from, for the report."""
        if self.published:
            return f"published: {self.published / 1e12:.0f} TFLOP/s dense bf16"
        figures = ", ".join(f"{DTYPES[amp]} {flops / 1e9:.0f} GFLOP/s" for amp, flops in self._measured.items())
        return f"measured with large matrix products: {figures}" if figures else "not needed"


def _measure(device: torch.device, dtype: torch.dtype, tries: int = 10) -> float:
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
