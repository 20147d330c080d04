"""HDM, the hierarchical decoupling module of DeMo (AAAI 2025): one feature for each subset of the modalities.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width, H heads, D = C / H, S = 7 subsets,
T = tokens of a subset, L for each of its modalities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SUBSETS = {
    "R": slice(0, 1),
    "N": slice(1, 2),
    "T": slice(2, 3),
    "RN": slice(0, 2),
    "RT": slice(0, 3, 2),
    "NT": slice(1, 3),
    "RNT": slice(0, 3),
}
"""Every non-empty subset of the modalities, as a slice along M; every axis S runs in this order."""
HEAD_DIM = 64


def present_subsets(present: Tensor) -> Tensor:
    """Map a mask of modalities (B, M) bool to a mask of the subsets (B, S) bool that have at least one of them."""
    return torch.stack([present[:, members].any(dim=1) for members in SUBSETS.values()], dim=1)


class HDM(nn.Module):
    """Let seven learned queries attend over the tokens of their subset's modalities, each by its own attention.

    Args:
        embed_dim: C.
        num_heads: H; None takes heads of width 64, as DeMo does.
        dropout: of the attention weights in training.
    """

    def __init__(self, embed_dim: int, *, num_heads: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        num_heads = num_heads or max(1, embed_dim // HEAD_DIM)
        self.queries = nn.Parameter(torch.randn(len(SUBSETS), embed_dim) * embed_dim**-0.5)
        self.attention = nn.ModuleDict(
            {name: nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True) for name in SUBSETS}
        )

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Tokens (B, M, L, C) to a feature per subset (B, S, C).

        With `present` (B, M) bool, the tokens of an absent modality take no part, and the feature of a subset that has
        no modality present (`present_subsets`) is 0.
        """
        # With the batch behind the tokens, all subsets but RT are views of one copy.
        by_modality = tokens.permute(1, 2, 0, 3).contiguous()  # (M, L, B, C)
        features = []
        for s, (name, members) in enumerate(SUBSETS.items()):
            attended = None
            if present is not None:
                inside = present[:, members]
                # A subset without any attends to all, because torch < 2.5 makes the softmax of nothing nan; its feature
                # is set to 0 below.
                attended = (inside | ~inside.any(dim=1, keepdim=True)).repeat_interleave(tokens.shape[2], dim=1)
            subset = by_modality[members].flatten(0, 1)  # (T, B, C)
            features.append(_attend(self.attention[name], self.queries[s], subset, attended))
        result = torch.stack(features, dim=1)
        return result if present is None else result.masked_fill(~present_subsets(present)[:, :, None], 0.0)


def _attend(attention: nn.MultiheadAttention, query: Tensor, tokens: Tensor, attended: Tensor | None) -> Tensor:
    """Apply `attention` to one query (C,) over those tokens (T, B, C) that are `attended` (B, T) bool; returns (B, C).

    The numbers are those of the module. Calling it would project the query for every sample and copy keys and values
    into another layout, which takes 1.4 times as long on the small ViT: 12 % of a training step of DeMo on two cores.
    """
    length, batch, width = tokens.shape
    num_heads, head_dim = attention.num_heads, attention.head_dim
    query_weight, weight = attention.in_proj_weight.split([width, 2 * width])
    query_bias, bias = attention.in_proj_bias.split([width, 2 * width])
    q = F.linear(query, query_weight, query_bias).view(1, num_heads, 1, head_dim).expand(batch, -1, -1, -1)
    k, v = F.linear(tokens, weight, bias).view(length, batch, 2, num_heads, head_dim).permute(2, 1, 3, 0, 4)
    feature = F.scaled_dot_product_attention(  # (B, H, 1, D)
        q,
        k,
        v,
        attn_mask=None if attended is None else attended[:, None, None, :],
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    return attention.out_proj(feature.flatten(1))
