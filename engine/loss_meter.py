"""Sums the losses of an epoch and watches them from the host without making the device wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import UserError


@dataclass(frozen=True, slots=True)
class _Pending:
    """The losses of one step on their way to the host."""

    step: int
    values: Tensor
    copied: torch.cuda.Event | None


class LossMeter:
    """Keeps the sums of the losses on the device, reads the latest ones, and raises when one is not finite.

    On the CPU a loss is read at once. On CUDA it is copied to pinned memory behind the step and read one step later,
    by which time the copy has finished; the device itself has skipped the optimiser step of a non-finite loss
    (`found_inf` in `Trainer.train_step`).

    Args:
        epoch: number of the epoch, counted from 1, for messages.
        sums: sums by loss over the steps that are already done, in an epoch that was interrupted.
        step: the number of those steps.
        device: the device of the losses.
    """

    def __init__(self, epoch: int, *, sums: Mapping[str, float], step: int, device: torch.device) -> None:
        self.epoch = epoch
        self.step = step
        self.latest: dict[str, float] = {}
        self._names = tuple(sums)
        self._sums: Tensor | float = torch.tensor(list(sums.values()), device=device) if sums else 0.0
        self._pending: deque[_Pending] = deque()

    def push(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step, scalars on the device.

        Raises:
            UserError: these losses, or on CUDA those of the step before, are not finite.
        """
        values = torch.stack(list(losses.values())).detach()
        self._names = tuple(losses)
        self._sums = self._sums + values
        self.step += 1
        host, copied = values, None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(values.device))
        self._pending.append(_Pending(self.step, host, copied))
        self._read(keep=1 if values.is_cuda else 0)

    def sums(self) -> dict[str, float]:
        """Return the sums by loss, with which an interrupted epoch continues.

        Raises:
            UserError: one of the latest losses is not finite.
        """
        return self._by_name(self._sums)

    def means(self) -> dict[str, float]:
        """Return the means by loss over all steps of the epoch.

        Raises:
            UserError: one of the latest losses is not finite.
        """
        return self._by_name(self._sums / self.step)

    def _by_name(self, values: Tensor) -> dict[str, float]:
        self._read(keep=0)
        return dict(zip(self._names, values.tolist(), strict=True))

    def _read(self, *, keep: int) -> None:
        """Read all pending losses but the last `keep`, oldest first."""
        while len(self._pending) > keep:
            entry = self._pending.popleft()
            if entry.copied is not None:
                entry.copied.synchronize()
            self.latest = dict(zip(self._names, entry.values.tolist(), strict=True))
            if not torch.isfinite(entry.values).all():
                listed = ", ".join(f"{name} = {value:g}" for name, value in self.latest.items())
                raise UserError(
                    f"Non-finite loss at epoch {self.epoch}, step {entry.step}: {listed}. The optimiser step was "
                    "skipped and no checkpoint was written after it. Lower SOLVER.BASE_LR or SOLVER.BACKBONE_LR, set "
                    "SOLVER.CLIP_GRAD_NORM, or SOLVER.AMP: off; --resume auto continues from the last good checkpoint."
                )
