"""A training step on a batch that several processes share, equal to that of one process with the whole batch.

Each process computes L, the loss of the whole batch, from the features and logits of all processes (`GatheredLoss`).
The backward pass of gathering sums the gradients that all n processes send to a row, so the gradient of a row is that
of n L. Averaging the n processes' gradients of the weights, each over its own rows, then gives the gradient of L. The
same holds for the batch normalisations, which gather as well (`modeling.layers.BatchNorm`).

Each process draws drop path, dropout and Gumbel noise for its own rows; the augmentation draws as one process would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data.sample import Batch
from modeling.model import ReIDOutput
from utils import distributed


class GatheredLoss(nn.Module):
    """`loss` over the rows of all processes: every process gets the same dict with the same values."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: ReIDOutput, batch: Batch) -> dict[str, Tensor]:
        """Losses of the whole batch, of which this process holds a part; the arguments are those of `ReIDLoss`."""
        features, logits = (
            {head: distributed.gather_rows(rows.float()) for head, rows in by_head.items()}
            for by_head in (output.features, output.logits)
        )
        present = {head: distributed.gather_rows(rows) for head, rows in output.present.items()}
        return self.loss(
            replace(output, features=features, logits=logits, present=present),
            replace(batch, pid=distributed.gather_rows(batch.pid)),
        )


def parallel_forward(model: nn.Module) -> Callable[..., ReIDOutput]:
    """`model` as a training step calls it: the processes average their gradients in the backward pass."""
    # The statistics of batch normalisation are equal in all processes already. A static graph allows parameters
    # without a gradient (a predictor whose score nothing reads) and does not search for them in each step.
    parallel = DistributedDataParallel(
        _AsDict(model), broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
    )
    return lambda *inputs: ReIDOutput(**parallel(*inputs))


class _AsDict(nn.Module):
    """Returns the output's fields as a dict: DistributedDataParallel looks for tensors in dicts, not in dataclasses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Any]:
        output = self.model(*inputs)
        return {field.name: getattr(output, field.name) for field in fields(output)}
