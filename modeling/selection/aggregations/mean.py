"""The mean of the kept patches, as one token."""

from __future__ import annotations

from torch import Tensor

from modeling.selection.aggregations.base import Aggregation
from modeling.selection.types import KeptInfo


class MeanAggregation(Aggregation):
    """Average the kept patches to one token.

    A control for the learned aggregation, whose weights can stay as even as these.
    """

    @staticmethod
    def count(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
        """Return T: one token, however many patches are kept."""
        return 1

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, kept: KeptInfo | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average tokens (B, S, C) to (B, 1, C), with the weights (B, 1, S)."""
        weights = tokens.new_full((len(tokens), 1, tokens.shape[1]), 1 / tokens.shape[1])
        return tokens.mean(dim=1, keepdim=True), weights
