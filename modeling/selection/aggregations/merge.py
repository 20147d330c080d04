"""Merging by similarity (ToMe, "Token Merging", Bolya et al., ICLR 2023).

Shapes: B batch, S tokens that come in, T tokens that come out, C width, d width of the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.selection.aggregations.base import Aggregation
from modeling.selection.aggregations.learned import num_aggregated
from modeling.selection.types import KeptInfo


class MergeAggregation(Aggregation):
    """Merge the kept patches that are most alike, two by two, to means that are weighted by their sizes (ToMe).

    Bipartite soft matching (sec. 3): the tokens are split alternately in A and B, each of A is tied to the one of B
    with the most similar key by cosine, and the r closest ties are merged. A round merges half of the tokens at most,
    and rounds follow until T tokens are left. The logarithm of the sizes joins the logits of attention in the blocks
    that follow (`ViTBackbone.size_bias`), and the sizes weigh the mean of the branch 'sdtps'.
    """

    tracks_sizes = True
    records = ("keys",)
    count = staticmethod(num_aggregated)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, kept: KeptInfo | None = None
    ) -> tuple[Tensor, Tensor]:
        """Merge tokens (B, S, C) to (B, T, C), with weights (B, T, S) that are 0 for patches of other tokens."""
        # (B, T, S), 1 where a kept token belongs to the merged one. At first each is alone, in the order of the image,
        # so that neighbours are in different halves.
        with torch.autocast(tokens.device.type, enabled=False):
            members = torch.eye(tokens.shape[1], device=tokens.device)[kept.places.argsort(dim=1)]
            while members.shape[1] > self.num_tokens:
                members = self._round(members, kept)
            weights = _averaging(members, kept.sizes)
        return weights.to(tokens.dtype) @ tokens, weights

    def _round(self, members: Tensor, kept: KeptInfo) -> Tensor:
        """Merge the closest ties of members (B, K, S), and return those of the tokens that are left (B, K - r, S)."""
        means = F.normalize(_averaging(members, kept.sizes) @ kept.keys, dim=-1)
        first, second = means[:, ::2], means[:, 1::2]
        similarity, partner = (first @ second.transpose(1, 2)).max(dim=-1)  # (B, |A|)
        merged = min(members.shape[1] - self.num_tokens, second.shape[1])
        order = similarity.argsort(dim=-1, descending=True, stable=True)
        gone, stays = order[:, :merged], order[:, merged:].sort(dim=-1).values
        count = members.shape[-1]
        moved = members[:, ::2].gather(1, gone.unsqueeze(-1).expand(-1, -1, count))
        target = partner.gather(1, gone).unsqueeze(-1).expand(-1, -1, count)
        joined = members[:, 1::2].scatter_add(1, target, moved)
        return torch.cat([members[:, ::2].gather(1, stays.unsqueeze(-1).expand(-1, -1, count)), joined], dim=1)


def _averaging(members: Tensor, sizes: Tensor) -> Tensor:
    """Turn members (B, T, S) and sizes (B, S) into the weights of size-weighted means: rows that sum to 1."""
    weighted = members * sizes.unsqueeze(1)
    return weighted / weighted.sum(dim=-1, keepdim=True)
