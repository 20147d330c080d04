"""The branch 'sdtps': the mean of the tokens that a patch selection leaves, for each modality."""

from __future__ import annotations

from torch import Tensor

from data.sample import MODALITIES
from modeling.branches.base import Branch, Feature, zero_absent
from modeling.selection import SDTPS


class SDTPSBranch(Branch):
    """Select, average, and concatenate the modalities.

    Args:
        embed_dim: C.
        selection: selects among the tokens of the last block; None where the backbone has selected already, between its
            blocks, so that every token it gives is one that is left.
    """

    switch = "MODEL.USE_SDTPS"

    def __init__(self, embed_dim: int, *, selection: SDTPS | None) -> None:
        super().__init__({"sdtps": len(MODALITIES) * embed_dim}, selection=selection)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> dict[str, Feature]:
        """Tokens (B, M, L, C) to the feature (B, M * C)."""
        left, kept = (tokens[:, :, 1:], None) if self.selection is None else self.selection(tokens, present)
        return {"sdtps": Feature(zero_absent(left.mean(dim=2), present).flatten(1), present, kept)}
