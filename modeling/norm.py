"""Batch normalisation of features that also takes a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over (B, D) in float32; a training batch of one uses the running statistics.

    One value has no variance, and torch refuses it; the last batch of somebody's data must not end a run.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, D)."""
        x = x.float()
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
