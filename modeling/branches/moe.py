"""The branch 'moe' of DeMo: HDM's seven features, and ATMoE's experts over them."""

from __future__ import annotations

from torch import Tensor

from modeling.branches.atmoe import ATMoE
from modeling.branches.base import Branch, Feature
from modeling.branches.hdm import HDM, SUBSETS, present_subsets
from modeling.selection import UNKNOWN, TokenInfo


class MoEBranch(Branch):
    """HDM, then ATMoE where there is one, flattened to one feature of width 7C.

    Args:
        embed_dim: C.
        hdm: one feature for each subset of the modalities.
        atmoe: gated experts over these features; None concatenates them.
    """

    switch = "MODEL.HDM"

    def __init__(self, embed_dim: int, *, hdm: HDM, atmoe: ATMoE | None) -> None:
        super().__init__({"moe": len(SUBSETS) * embed_dim})
        self.hdm = hdm
        self.atmoe = atmoe

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> dict[str, Feature]:
        """Tokens (B, M, L, C) to the feature (B, 7C)."""
        features = self.hdm(tokens, present)  # (B, 7, C)
        subsets = None if present is None else present_subsets(present)
        if self.atmoe is None:
            return {"moe": Feature(features.flatten(1), subsets)}
        parts = None if subsets is None else subsets.repeat(1, self.atmoe.gate.num_heads)
        return {"moe": Feature(self.atmoe(features, subsets), parts)}
