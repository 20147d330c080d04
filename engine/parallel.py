"""A training step on a batch that several processes share, equal to that of one process with the whole batch.

Each process has L, the loss of the whole batch: it gathers everybody's features and logits (`GatheredLoss`). Gathering
sums in its backward pass what all processes send to a row, so a row's gradient is that of n L; and averaging the n
processes' gradients of the weights, each over its own rows, makes that the gradient of L. The same holds for the batch
normalisations, which gather as well (`modeling.layers.BatchNorm`).

Drop path, dropout and Gumbel noise are drawn by each process for its own rows; augmentation as one process would.
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
    """`loss` over the rows of all processes: the same dict, of the same values, in each of them."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: ReIDOutput, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the batch of which this process holds a part; the arguments are those of `ReIDLoss`."""
        features, logits = (
            {name: distributed.gather_rows(rows.float()) for name, rows in by_head.items()}
            for by_head in (output.features, output.logits)
        )
        present = {name: distributed.gather_rows(rows) for name, rows in output.present.items()}
        output = replace(output, features=features, logits=logits, present=present)
        return self.loss(output, replace(batch, pid=distributed.gather_rows(batch.pid)))


def parallel_forward(model: nn.Module) -> Callable[..., ReIDOutput]:
    """`model` as a training step calls it: in the backward pass the processes average their gradients."""
    # The statistics of batch normalisation are equal in all processes already. A static graph lets parameters be
    # without a gradient (a predictor whose score nothing reads), without a search for them in each step.
    parallel = DistributedDataParallel(
        _AsDict(model), broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
    )
    return lambda *inputs: ReIDOutput(**parallel(*inputs))


class _AsDict(nn.Module):
    """The output's fields as a dict: DistributedDataParallel looks for tensors in dicts, but not in dataclasses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Any]:
        output = self.model(*inputs)
        return {field.name: getattr(output, field.name) for field in fields(output)}
