"""Layers that torch lacks: CLIP's activation, and a batch normalisation for features of several processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils import distributed


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the approximation of GELU (Hendrycks and Gimpel, arXiv:1606.08415) that CLIP uses."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to each element of `x`."""
        return x * torch.sigmoid(1.702 * x)


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over (B, D) in float32, with the statistics of the whole batch of all processes.

    torch rejects a training batch of one, which has no variance; such a batch is normalised by the running statistics,
    so that the last batch of a data set cannot end a run.

    With several processes, each gathers the rows of all and returns its own. Rows are a few features per sample, so
    sending them costs little more than sending statistics, and the results are those of a single process.
    """

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Normalise x (B, D).

        Entries that are not `present` (B, D) bool enter no statistic and come out as 0, so that an absent modality does
        not change how the present ones are normalised.
        """
        if self.training and distributed.is_active():
            present = None if present is None else distributed.gather_rows(present)
            return distributed.own_rows(self._normalize(distributed.gather_rows(x.float()), present))
        return self._normalize(x.float(), present)

    def _normalize(self, x: Tensor, present: Tensor | None) -> Tensor:
        if present is not None:
            mean, var = self._statistics(x, present) if self.training else (self.running_mean, self.running_var)
            normalized = (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
            return normalized.masked_fill(~present, 0.0)
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

    def _statistics(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (D,) of the present entries; the running ones where fewer than two are."""
        number = present.sum(dim=0)
        mean = (x * present).sum(dim=0) / number.clamp_min(1)
        var = ((x - mean) * present).square().sum(dim=0) / number.clamp_min(1)
        enough = number > 1
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = var * number / (number - 1).clamp_min(1)
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.copy_(torch.where(enough, running.lerp(new, self.momentum), running))
        return torch.where(enough, mean, self.running_mean), torch.where(enough, var, self.running_var)
