"""The score of a place, read in all modalities at once and taught by the identities.

Shapes: B batch, M modality, N patches, C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from modeling.selection.scores.base import Score
from modeling.selection.types import UNKNOWN, Scores, TokenInfo

HIDDEN = 64
"""The width of the MLP inside."""


class AlignedScore(Score):
    """Score a place by what all modalities show there, taught by a head that tells the identity from what is chosen.

    The modalities are aligned, so the patches at one place of the image see the same thing. An MLP reads them side by
    side, each normalised, and gives the place one score s for all modalities. In training the patches of the image are
    averaged with the weights sigmoid(s) / sum(sigmoid(s)), and a head of its own must tell the identity from these
    means: what tells identities apart gets a high score. This is attention-based multiple-instance learning (Ilse et
    al., ICML 2018, eq. 7-8), where the patches are the instances. The gradient of this head trains the score alone, so
    that the backbone serves its branches only.

    Args:
        embed_dim: C.
        modalities: names along M.
    """

    needs = frozenset({"grid"})
    has_head = True

    def __init__(self, *, embed_dim: int, modalities: Sequence[str] = MODALITIES, **_others: object) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(nn.Linear(len(modalities) * embed_dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) alike in all modalities; an absent one is read as zeros."""
        with torch.autocast(tokens.device.type, enabled=False):
            patches = tokens[:, :, 1:].detach().float()
            read = self.norm(patches)
            if present is not None:
                read = read * present[:, :, None, None]
            score = self.mlp(read.transpose(1, 2).flatten(2)).transpose(1, 2)  # (B, 1, N)
            weights = score.sigmoid()
            pooled = (weights.unsqueeze(2) @ patches).squeeze(2) / weights.sum(dim=-1, keepdim=True)  # (B, M, C)
        return Scores(score.expand(-1, tokens.shape[1], -1), pooled=pooled)
