"""The branch 'sdtps': the mean of the tokens that come out of a patch selection, for each modality."""

from __future__ import annotations

from torch import Tensor

from data.sample import MODALITIES
from modeling.branches.base import Branch, Feature, zero_absent
from modeling.selection import PatchSelection


class SDTPSBranch(Branch):
    """Select, average, and concatenate the modalities.

    Args:
        embed_dim: C.
        selection: selects among the tokens of the last block; None where patches were already selected between the
            blocks of the backbone, so that all of its tokens have come out of a selection.
    """

    switch = "MODEL.USE_SDTPS"

    def __init__(self, embed_dim: int, *, selection: PatchSelection | None) -> None:
        super().__init__({"sdtps": len(MODALITIES) * embed_dim}, selection=selection)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> dict[str, Feature]:
        """Tokens (B, M, L, C) to the feature (B, M * C)."""
        selected, selection = tokens[:, :, 1:], None
        if self.selection is not None:
            selected, selection = self.selection(tokens, present)
        return {"sdtps": Feature(zero_absent(selected.mean(dim=2), present).flatten(1), present, selection)}
