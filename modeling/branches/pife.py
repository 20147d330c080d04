"""PIFE, the patch-integrated feature extraction of DeMo (AAAI 2025); MODEL.GLOBAL_LOCAL.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from modeling.activations import QuickGELU


class PIFE(nn.Module):
    """Each modality's global becomes reduce([global ; mean of its patches]), with a reduction of its own.

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
        """Tokens (B, M, L, C) to the new globals (B, M, C)."""
        joined = torch.cat([tokens[:, :, 0], tokens[:, :, 1:].mean(dim=2)], dim=-1)  # (B, M, 2C)
        return torch.stack([reduce(joined[:, m]) for m, reduce in enumerate(self.reduce.values())], dim=1)
