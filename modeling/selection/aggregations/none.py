"""The kept patches, as they are."""

from __future__ import annotations

from torch import Tensor

from modeling.selection.aggregations.base import Aggregation
from modeling.selection.sparse import num_kept
from modeling.selection.types import KeptInfo


class NoAggregation(Aggregation):
    """Hand the kept patches on unchanged."""

    @staticmethod
    def count(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
        """Return T: as many tokens as patches are kept."""
        return num_kept(num_patches, sparse_ratio)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, kept: KeptInfo | None = None) -> tuple[Tensor, None]:
        """Return tokens (B, S, C) as they are, and no weights."""
        return tokens, None
