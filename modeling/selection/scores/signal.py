"""The votes of Signal: the global of the same modality, and those of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.selection.scores.base import Score
from modeling.selection.scores.votes import count_votes
from modeling.selection.sparse import num_kept
from modeling.selection.types import UNKNOWN, Scores, TokenInfo


class SignalScore(Score):
    """Score a patch by the votes of the globals of all modalities (Signal).

    A global g votes for the K patches p of a modality with the highest <g, p> / sqrt(C): one vote from the same
    modality and one from each of the others. Signal keeps all patches with a vote; here the K patches with the most are
    kept, of equal ones those with the larger mean softmax of these products.

    Args:
        num_patches: N.
        sparse_ratio: the share of them that are kept, which sets K.
    """

    def __init__(self, *, num_patches: int, sparse_ratio: float, **_others: object) -> None:
        super().__init__()
        self.num_votes = num_kept(num_patches, sparse_ratio)

    @torch.no_grad()
    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C); the global of an absent modality has no vote."""
        with torch.autocast(tokens.device.type, enabled=False):
            globals_, patches = tokens[:, :, 0].float(), tokens[:, :, 1:].float()
            products = torch.einsum("bgc,bmnc->bmgn", globals_, patches) / tokens.shape[-1] ** 0.5
            voters = None if present is None else present.unsqueeze(1)  # (B, 1, G)
            return Scores(count_votes(products.softmax(dim=-1), self.num_votes, voters))
