"""ATMoE, the attention-triggered mixture of experts of DeMo (AAAI 2025), over the features of HDM.

Shapes: B batch, F features, C width, H heads, D = C / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modeling.branches.hdm import SUBSETS
from modeling.layers import BatchNorm, QuickGELU
from utils.errors import UserError


class Gate(nn.Module):
    """Say how much each head takes of each feature, by attention of all features together over the single ones.

    Args:
        embed_dim: C.
        num_heads: H.
        num_features: F.
    """

    def __init__(self, embed_dim: int, *, num_heads: int, num_features: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reduce = nn.Sequential(nn.Linear(num_features * embed_dim, embed_dim), QuickGELU(), BatchNorm(embed_dim))
        self.q = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Features (B, F, C) to gates (B, H, F), float32, that sum to 1 over the `present` (B, F) features."""
        heads = (self.num_heads, -1)
        q = self.q(self.reduce(features.flatten(1))).unflatten(-1, heads).unsqueeze(1)  # (B, 1, H, D)
        k = self.k(features).unflatten(-1, heads)  # (B, F, H, D)
        scores = (q.float() * k.float()).sum(dim=-1) * k.shape[-1] ** -0.5  # (B, F, H)
        if present is not None:
            scores = scores.masked_fill(~present.unsqueeze(-1), -torch.inf)
        return scores.softmax(dim=1).transpose(1, 2)


class Experts(nn.Module):
    """Run a network for each head and feature on that head's chunk of the feature: Linear, QuickGELU, BatchNorm1d.

    All of them are computed as one; those of head h and feature f are `weight[h, f]`, `bias[h, f]` and the D channels
    of `norm` from (h * F + f) * D.

    Args:
        embed_dim: C.
        num_heads: H.
        num_features: F.
    """

    def __init__(self, embed_dim: int, *, num_heads: int, num_features: int) -> None:
        super().__init__()
        width = embed_dim // num_heads
        bound = width**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(num_heads, num_features, width, width).uniform_(-bound, bound))
        """(H, F, D out, D in)."""
        self.bias = nn.Parameter(torch.empty(num_heads, num_features, width).uniform_(-bound, bound))
        self.activation = QuickGELU()
        self.norm = BatchNorm(num_heads * num_features * width)

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Features (B, F, C) to the outputs of the experts (B, H, F, D), 0 where a feature is not `present` (B, F)."""
        chunks = features.unflatten(-1, (self.weight.shape[0], -1))  # (B, F, H, D)
        hidden = self.activation(torch.einsum("bfhi,hfoi->bhfo", chunks, self.weight) + self.bias)
        entries = None if present is None else present[:, None, :, None].expand_as(hidden).flatten(1)
        return self.norm(hidden.flatten(1), entries).view_as(hidden)


class ATMoE(nn.Module):
    """Multiply the outputs of the experts by their gates.

    In training a batch of one is normalised by the running statistics (`modeling.layers.BatchNorm`).

    Args:
        embed_dim: C.
        num_heads: H, MODEL.HEAD.
        num_features: F.

    Raises:
        UserError: `num_heads` does not divide `embed_dim`.
    """

    def __init__(self, embed_dim: int, *, num_heads: int, num_features: int = len(SUBSETS)) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            allowed = [n for n in range(1, embed_dim + 1) if embed_dim % n == 0]
            raise UserError(
                f"MODEL.HEAD is {num_heads}; it cuts a feature of {embed_dim} channels into equal parts and must "
                f"divide that number: set it to one of {', '.join(map(str, allowed))}."
            )
        self.gate = Gate(embed_dim, num_heads=num_heads, num_features=num_features)
        self.experts = Experts(embed_dim, num_heads=num_heads, num_features=num_features)

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Features (B, F, C) to (B, F * C): for each head, for each feature, the expert's D channels.

        Features that are not `present` (B, F) bool, of which a sample has at least one, get no gate and come out as 0.
        """
        return (self.gate(features, present).unsqueeze(-1) * self.experts(features, present)).flatten(1)
