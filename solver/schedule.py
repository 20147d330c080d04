"""Compute the learning rate of an epoch by pure functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


def lr_factor(epoch: int, *, warmup_epochs: int, max_epochs: int, warmup_start: float, min_factor: float) -> float:
    """Return the factor on the rate of `epoch` (from 0): first linear up to 1, then a cosine to `min_factor`.

    It is `warmup_start` at epoch 0, 1 at epoch `warmup_epochs` and `min_factor` at the last epoch.
    """
    if epoch < warmup_epochs:
        return warmup_start + (1 - warmup_start) * epoch / warmup_epochs
    length = max_epochs - 1 - warmup_epochs
    progress = (epoch - warmup_epochs) / length if length > 0 else 0.0
    return min_factor + (1 - min_factor) * _half_cosine(progress)


def original_lr(
    epoch: int, base_lr: float, *, warmup_epochs: int, max_epochs: int, warmup_lr: float, min_lr: float
) -> float:
    """Return the rate of a group of rate `base_lr` in the original code's epoch `epoch`, without its noise.

    During warm-up the rate of every group goes linearly from the same `warmup_lr` (0.1 x BASE_LR, seven times the rate
    of the CLIP tower) to `base_lr`. The cosine to `min_lr`, which is an absolute rate as well, runs from epoch 0 on, so
    the rate drops when the warm-up ends; it would reach `min_lr` at epoch `max_epochs`. This is the schedule of timm's
    CosineLRScheduler with warmup_prefix=False.
    """
    if epoch < warmup_epochs:
        return warmup_lr + (base_lr - warmup_lr) * epoch / warmup_epochs
    return min_lr + (base_lr - min_lr) * _half_cosine(min(epoch / max_epochs, 1.0))


def _half_cosine(progress: float) -> float:
    """Return a half cosine, which falls from 1 to 0 as `progress` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def lr_noise(epoch: int, seed: int, amplitude: float) -> float:
    """Return the relative noise on DeMo's rate of an epoch: normal, drawn again until it is within +-`amplitude`.

    The draws are those of timm's schedulers with noise_seed=`seed` and noise_pct=`amplitude`.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    while abs(noise := torch.randn(1, generator=generator).item()) >= amplitude:
        pass
    return noise


class EpochSchedule:
    """Set the 'lr' of each group to factor(epoch) x rate(epoch, its 'base_lr'); it has no state.

    Args:
        optimizer: each of its groups has a 'base_lr'.
        factor: the factor of an epoch that all groups share.
        rate: the rate of an epoch for a group's 'base_lr' (`original_lr`); by default the 'base_lr' itself.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factor: Callable[[int], float],
        *,
        rate: Callable[[int, float], float] = lambda epoch, base_lr: base_lr,
    ) -> None:
        self.optimizer = optimizer
        self.factor = factor
        self.rate = rate

    def set_epoch(self, epoch: int) -> None:
        """Set the rates that hold during `epoch` (from 0)."""
        factor = self.factor(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.rate(epoch, group["base_lr"])
