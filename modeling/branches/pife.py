"""PIFE, the patch-integrated feature extraction of DeMo (AAAI 2025); MODEL.GLOBAL_LOCAL.

It is no branch of its own: it renews the globals that every branch then sees.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from modeling.layers import QuickGELU


class PIFE(nn.Module):
    """Replace the global of each modality by reduce([global ; mean of its patches]), with a layer for each modality.

    Args:
        embed_dim: C.
        modalities: names along M.
    """

    def __init__(self, embed_dim: int, *, modalities: Sequence[str] = MODALITIES) -> None:
        super().__init__()
        self.reduce = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(2 * embed_dim), nn.Linear(2 * embed_dim, embed_dim), QuickGELU())
                for name in modalities
            }
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, M, L, C) to tokens of the same shape, with new globals and the same patches."""
        patches = tokens[:, :, 1:]
        joined = torch.cat([tokens[:, :, 0], patches.mean(dim=2)], dim=-1)  # (B, M, 2C)
        globals_ = torch.stack([reduce(joined[:, m]) for m, reduce in enumerate(self.reduce.values())], dim=1)
        return torch.cat([globals_.unsqueeze(2), patches], dim=2)
