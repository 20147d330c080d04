"""The branch 'ori' of DeMo: the globals of the modalities, joined or each for itself (MODEL.DIRECT)."""

from __future__ import annotations

from torch import Tensor

from data.sample import MODALITIES
from modeling.branches.base import Branch, Feature, zero_absent
from modeling.selection import UNKNOWN, TokenInfo


class OriBranch(Branch):
    """The globals as features.

    Args:
        embed_dim: C.
        direct: True concatenates the globals under one head 'ori'; False gives each modality a head of its own,
            'ori_RGB', 'ori_NI' and 'ori_TI'.
    """

    def __init__(self, embed_dim: int, *, direct: bool) -> None:
        joint, apart = {"ori": len(MODALITIES) * embed_dim}, {f"ori_{name}": embed_dim for name in MODALITIES}
        super().__init__(joint if direct else apart)
        self.direct = direct

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> dict[str, Feature]:
        """Tokens (B, M, L, C) to the feature (B, M * C), or to M features (B, C)."""
        globals_ = zero_absent(tokens[:, :, 0], present)
        if self.direct:
            return {"ori": Feature(globals_.flatten(1), present)}
        return {
            name: Feature(globals_[:, m], None if present is None else present[:, m : m + 1])
            for m, name in enumerate(self.head_dims)
        }
