"""Batch normalisation of features, over the whole batch of all processes, that also takes a batch of one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils import distributed


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over (B, D) in float32; a training batch of one uses the running statistics.

    One value has no variance, and torch refuses it; the last batch of somebody's data must not end a run.

    In training each of several processes normalises everybody's rows and keeps its own. Those are a few features per
    sample: sending them costs little more than sending statistics, and gives the numbers of one process.
    """

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Normalise x (B, D).

        With `counted` (B, D) bool, the other entries are in no statistic and come out as 0: an absent modality must not
        move what the present ones are normalised by.
        """
        if self.training and distributed.is_active():
            counted = None if counted is None else distributed.gather_rows(counted)
            return distributed.own_rows(self._normalize(distributed.gather_rows(x.float()), counted))
        return self._normalize(x.float(), counted)

    def _normalize(self, x: Tensor, counted: Tensor | None) -> Tensor:
        if counted is not None:
            mean, var = self._statistics(x, counted) if self.training else (self.running_mean, self.running_var)
            normalized = (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
            return normalized.masked_fill(~counted, 0.0)
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

    def _statistics(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (D,) of what is counted, the running ones where that is fewer than two entries."""
        number = counted.sum(dim=0)
        mean = (x * counted).sum(dim=0) / number.clamp_min(1)
        var = ((x - mean) * counted).square().sum(dim=0) / number.clamp_min(1)
        enough = number > 1
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = var * number / (number - 1).clamp_min(1)
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.copy_(torch.where(enough, running.lerp(new, self.momentum), running))
        return torch.where(enough, mean, self.running_mean), torch.where(enough, var, self.running_var)
