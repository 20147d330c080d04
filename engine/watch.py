"""Watches the losses from the host without making the device wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import UserError


@dataclass(frozen=True, slots=True)
class _Pending:
    epoch: int
    step: int
    names: tuple[str, ...]
    values: Tensor
    copied: torch.cuda.Event | None


class LossWatch:
    """Raises on a non-finite loss and keeps the latest losses for the progress bar.

    On the CPU a loss is read at once. On CUDA it is copied to pinned memory behind the step and read one step later,
    when it has long arrived; the optimiser step of the bad one was called off on the device itself (`found_inf`).
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self._pending: deque[_Pending] = deque()

    def push(self, epoch: int, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Take the losses of a step: `values` (len(names),), on the device.

        Raises:
            UserError: these losses, or on CUDA those of the step before, are not finite.
        """
        copied = None
        host = values.detach()
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values.detach(), non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(values.device))
        self._pending.append(_Pending(epoch, step, names, host, copied))
        self._read(keep=1 if values.is_cuda else 0)

    def flush(self) -> None:
        """Read what is still on its way.

        Raises:
            UserError: it is not finite.
        """
        self._read(keep=0)

    def _read(self, *, keep: int) -> None:
        while len(self._pending) > keep:
            entry = self._pending.popleft()
            if entry.copied is not None:
                entry.copied.synchronize()
            self.latest = dict(zip(entry.names, entry.values.tolist(), strict=True))
            if not torch.isfinite(entry.values).all():
                listed = ", ".join(f"{name} = {value:g}" for name, value in self.latest.items())
                raise UserError(
                    f"Non-finite loss at epoch {entry.epoch}, step {entry.step}: {listed}. The optimiser step was not "
                    "taken and no checkpoint was written after it. Lower SOLVER.BASE_LR or SOLVER.BACKBONE_LR, set "
                    "SOLVER.CLIP_GRAD_NORM, or SOLVER.AMP: off; --resume auto continues from the last good checkpoint."
                )
