"""Batch normalisation of features, over the whole batch of all processes, that also takes a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from utils import distributed


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over (B, D) in float32; a training batch of one uses the running statistics.

    One value has no variance, and torch refuses it; the last batch of somebody's data must not end a run.

    In training each of several processes normalises everybody's rows and keeps its own. Those are a few features per
    sample: sending them costs little more than sending statistics, and gives the numbers of one process.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, D)."""
        if self.training and distributed.is_active():
            return distributed.own_rows(self._normalize(distributed.gather_rows(x.float())))
        return self._normalize(x.float())

    def _normalize(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
