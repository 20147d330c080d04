"""TokenAggregation: learned convex combinations of the kept patches (SEPS eq. 4).

The straight-through decision matrix D enters as a *factor*, W = D exp(l) / sum(D exp(l)). SEPS writes it as a term,
softmax(l - (1 - D) 1e10). W is the same for a hard D, but d(logits)/dD = 1e10 multiplies every gradient that reaches
the score, and 1e10 is inf in float16; tests/modeling/selection/test_gumbel_gradient.py measures both.

Shapes: B batch, S tokens that come in, T tokens that come out, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modeling.selection.aggregations.base import Aggregation
from modeling.selection.sparse import ROUNDING
from modeling.selection.types import KeptInfo

MAX_LOGIT_GAP = 10.0
"""The gap above the largest kept logit at which a dropped one is clamped, so that exp(10) bounds the gradient of D."""


def num_aggregated(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
    """N_c = max(1, floor(alpha rho N))."""
    return max(1, math.floor(aggr_ratio * sparse_ratio * num_patches + ROUNDING))


class TokenAggregation(Aggregation):
    """Aggregate S tokens to T learned convex combinations of them (SEPS eq. 4).

    Args:
        embed_dim: width C of the tokens.
        num_tokens: T, tokens that come out.
    """

    uses_mask = True
    count = staticmethod(num_aggregated)

    def __init__(self, embed_dim: int, num_tokens: int) -> None:
        super().__init__(embed_dim, num_tokens)
        hidden_dim = int(0.2 * embed_dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(embed_dim),
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_tokens),
        )
        self.scale = nn.Parameter(torch.ones(1))

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, kept: KeptInfo | None = None
    ) -> tuple[Tensor, Tensor]:
        """Combine `tokens` (B, S, C), without those whose `mask` (B, S) is 0, to (B, T, C) with weights (B, T, S)."""
        logits = self.mlp(tokens).transpose(1, 2).float() * self.scale  # (B, T, S)
        weights = logits.softmax(dim=-1) if mask is None else masked_softmax(logits, mask.unsqueeze(1))
        return weights.to(tokens.dtype) @ tokens, weights


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """W = D exp(l) / sum(D exp(l)) over the last axis, with a bounded gradient in D.

    Args:
        logits: l, (B, T, N) float32.
        mask: D, broadcastable to it; 0 or 1 in value, at least one 1 in a row.
    """
    kept = mask.detach() > 0
    row_max = logits.detach().masked_fill(~kept, -math.inf).amax(dim=-1, keepdim=True)
    # The clamp touches dropped tokens only: where D is 0 it changes no value, and caps the gradient of D.
    numerator = mask * (logits - row_max).clamp(max=MAX_LOGIT_GAP).exp()
    return numerator / numerator.sum(dim=-1, keepdim=True)
