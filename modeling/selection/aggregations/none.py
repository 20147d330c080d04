"""The kept patches, as they are."""

from __future__ import annotations

from torch import Tensor, nn

from modeling.selection.sparse import num_kept


class NoAggregation(nn.Module):
    """Hand the kept patches on unchanged."""

    uses_mask = False

    def __init__(self, embed_dim: int, num_tokens: int) -> None:
        super().__init__()

    @staticmethod
    def count(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
        """Return how many tokens come out of `num_patches`: as many as are kept."""
        return num_kept(num_patches, sparse_ratio)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        """Return tokens (B, S, C) as they are, and no weights."""
        return tokens, None
