"""Timings of several ways to do one thing, interleaved so that machine drift affects all of them equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one value per repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Return the interquartile range as a share of the median; 0 with a single repetition."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the result."""

    name: str
    unit: str
    ours: float
    reference: float | None = None
    """The same measure of the reference implementation, or of what the name says that ours is compared with."""
    ratio: float | None = None
    """How many times as good ours is; above 1 is better."""
    spread: float | None = None
    """The larger of the two interquartile ranges, as a share of the median."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row for the JSON file, with numbers rounded to four digits."""
        return {key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in asdict(self).items()}


def timing_row(name: str, ours: Timing, reference: Timing, *, samples: int | None = None) -> Row:
    """Compare two timings, in samples per second if each call handles `samples` of them, else in milliseconds."""

    def measure(timing: Timing) -> float:
        return samples / timing.median if samples else 1e3 * timing.median

    return Row(
        name=name,
        unit="samples/s" if samples else "ms",
        ours=measure(ours),
        reference=measure(reference),
        ratio=reference.median / ours.median,
        spread=max(ours.spread, reference.spread),
    )


def compare(
    ways: Mapping[str, Callable[[], Any]], device: torch.device, *, repeats: int, warmup: int = 1, calls: int = 1
) -> dict[str, Timing]:
    """Time each of `ways`, one after the other, in an order that rotates with every repetition.

    Args:
        ways: functions by name.
        device: waited for before and after the calls.
        repeats: measured repetitions.
        warmup: repetitions before those, which are not measured.
        calls: calls per repetition without a wait between them; the time is that of one call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repetition in range(warmup + repeats):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            start = now(device)
            for _ in range(calls):
                ways[name]()
            elapsed = now(device) - start
            if repetition >= warmup:
                seconds[name].append(elapsed / calls)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def now(device: torch.device) -> float:
    """Wait until the device has finished what it was given, and read the host's clock in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(call: Callable[[], Any], device: torch.device) -> int | None:
    """Measure the bytes that `call` needs at its peak beyond those held before; None where the system cannot tell.

    On CUDA these are the allocator's bytes. On the CPU it is the resident set, whose peak Linux lets a process reset.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        call()
        return _resident("VmHWM") - before
    except (OSError, KeyError):
        return None


def _resident(field: str) -> int:
    """Read the bytes in a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(dict(line.split(":", 1) for line in lines)[field].split()[0])
