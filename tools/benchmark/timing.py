"""Repeated timings of several ways to do one thing, in turn, so that a drift of the machine meets all of them."""

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
    """Seconds of a call: one figure per repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median; 0 with a single repetition."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the result: ours beside the peers' way."""

    subject: str
    name: str
    unit: str
    ours: float
    peers: float | None = None
    ratio: float | None = None
    """How many times as good ours is; above 1 is better."""
    spread: float | None = None
    """The larger of the two interquartile ranges, as a share of the median."""

    def as_dict(self) -> dict[str, Any]:
        """For the JSON, rounded to what can be meant."""
        return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


def rate_row(subject: str, name: str, ours: Timing, peers: Timing, *, count: int, unit: str) -> Row:
    """A row of things done in a second, of which a call does `count`."""
    return Row(
        subject=subject,
        name=name,
        unit=f"{unit}/s",
        ours=count / ours.median,
        peers=count / peers.median,
        ratio=peers.median / ours.median,
        spread=max(ours.spread, peers.spread),
    )


def time_row(subject: str, name: str, ours: Timing, peers: Timing) -> Row:
    """A row of milliseconds."""
    return Row(
        subject=subject,
        name=name,
        unit="ms",
        ours=1e3 * ours.median,
        peers=1e3 * peers.median,
        ratio=peers.median / ours.median,
        spread=max(ours.spread, peers.spread),
    )


def compare(
    ways: Mapping[str, Callable[[], Any]], device: torch.device, *, repeats: int, warmup: int = 1, calls: int = 1
) -> dict[str, Timing]:
    """Time each of `ways`, one after the other in every repetition, the order turning.

    Args:
        device: on CUDA the time is that between two events around the calls, after which the device is waited for.
        warmup: repetitions that are not counted.
        calls: calls per repetition without a wait between them; the time is that of one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repetition in range(warmup + repeats):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            clock = StepClock(device)
            for _ in range(calls):
                ways[name]()
            clock.mark("all")
            if repetition >= warmup:
                seconds[name].append(clock.seconds()["all"] / calls)
            else:
                clock.seconds()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


class StepClock:
    """Time between marks: CUDA events on a card, which nothing waits for until the end, else the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[tuple[str, Any]] = []
        self.mark("start")

    def mark(self, name: str) -> None:
        """The part `name` ends here."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((name, event))
        else:
            self._marks.append((name, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds by part; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self.device.type == "cuda":
            return {name: before.elapsed_time(mark) / 1e3 for (_, before), (name, mark) in pairs}
        return {name: mark - before for (_, before), (name, mark) in pairs}


def peak_memory(call: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that `call` takes at most beyond what is held before it; None where the system does not tell.

    On CUDA of the allocator. On the CPU of the resident set, whose peak Linux lets a process reset.
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
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(dict(line.split(":", 1) for line in lines)[field].split()[0])
