"""The learning rate of an epoch, as pure functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch


def lr_factor(epoch: int, *, warmup_epochs: int, max_epochs: int, warmup_start: float, min_factor: float) -> float:
    """Factor on the rate during `epoch` (from 0): linear from `warmup_start` to 1, then a cosine to `min_factor`.

    It is `warmup_start` at epoch 0, 1 at epoch `warmup_epochs` and `min_factor` at the last epoch.
    """
    if epoch < warmup_epochs:
        return warmup_start + (1 - warmup_start) * epoch / warmup_epochs
    length = max_epochs - 1 - warmup_epochs
    progress = (epoch - warmup_epochs) / length if length > 0 else 0.0
    return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def lr_noise(epoch: int, seed: int, amplitude: float) -> float:
    """The relative noise that DeMo puts on the rate of an epoch: normal, drawn again until within +-`amplitude`."""
    generator = np.random.default_rng((seed, epoch))
    while abs(noise := generator.standard_normal()) >= amplitude:
        pass
    return float(noise)


class EpochSchedule:
    """Sets each group's 'lr' to factor(epoch) x its 'base_lr'; keeps no state of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> None:
        self.optimizer = optimizer
        self.factor = factor

    def set_epoch(self, epoch: int) -> None:
        """Set the rates that hold during `epoch` (from 0)."""
        factor = self.factor(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
