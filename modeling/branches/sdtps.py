"""The branch 'sdtps': the mean of the tokens that come out of a patch selection, for each modality."""

from __future__ import annotations

from torch import Tensor

from data.sample import MODALITIES
from modeling.branches.base import Branch, Feature, zero_absent
from modeling.selection import UNKNOWN, PatchSelection, TokenInfo


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

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> dict[str, Feature]:
        """Tokens (B, M, L, C) to the feature (B, M * C)."""
        selected, selection, sizes = tokens[:, :, 1:], None, info.sizes
        if self.selection is not None:
            selected, selection = self.selection(tokens, present, info)
            sizes = selection.sizes
        # A token that was merged from s patches counts s times.
        mean = selected.mean(dim=2) if sizes is None else (selected * sizes.unsqueeze(-1)).sum(2) / sizes.sum(2, True)
        return {"sdtps": Feature(zero_absent(mean, present).flatten(1), present, selection)}
