"""Scores from what the class token attends to, without parameters of their own.

Shapes: B batch, M modality, N patches, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.selection.scores.base import Score
from modeling.selection.scores.votes import count_votes
from modeling.selection.sparse import num_kept
from modeling.selection.types import UNKNOWN, Scores, TokenInfo


class AttentionScore(Score):
    """Score a patch by the attention that the class token pays to it in the block before (EViT).

    a_i is the mean over the heads of the class token's row of softmax(Q K^T / sqrt d) (Liang et al., ICLR 2022,
    eq. 2-3), and the score is log(N a_i): 0 for an even share. The weights of the extra token, the softmax of the
    scores of the dropped patches, are then a_i / sum(a_i), those of EViT's fused token up to their sum.
    """

    records: tuple[str, ...] = ("attention",)

    def __init__(self, **_others: object) -> None:
        super().__init__()

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) by what the backbone has recorded."""
        share = self._share(info.recorded[self.records[0]])
        return Scores((share * share.shape[-1]).clamp_min(torch.finfo(share.dtype).tiny).log())

    def _share(self, recorded: Tensor) -> Tensor:
        """Reduce what was recorded (B, M, H, N) to (B, M, N)."""
        return recorded.mean(dim=2)


class RolloutScore(AttentionScore):
    """Score a patch by attention rollout: the class token's attention, followed through all blocks before.

    It is the class token's row of the product of (A + I) / 2 over the blocks, where A is the mean of the heads (Abnar
    and Zuidema, ACL 2020); the score is the logarithm of N times that.
    """

    records = ("rollout",)
    needs = frozenset({"grid"})


class ATSScore(AttentionScore):
    """Score a patch by the class token's attention times the norm of the patch's value (ATS).

    S_i = a_i |v_i| / sum(a_j |v_j|), the mean over the heads (Fayyaz et al., ECCV 2022, eq. 3); the score is
    log(N S_i). The patches are kept by their rank; ATS itself samples them at quantiles of the sum of S.
    """

    records = ("value_attention",)

    def _share(self, recorded: Tensor) -> Tensor:
        return (recorded / recorded.sum(dim=-1, keepdim=True)).mean(dim=2)


class EditorScore(Score):
    """Score a patch by the votes of all heads of all modalities, one choice for all of them (EDITOR).

    A head votes for the K patches that are highest in the class token's row of the product of its attention over the
    blocks before (Zhang et al., CVPR 2024). EDITOR keeps all patches with a vote; here the K patches with the most are
    kept, of equal ones those with the larger mean in these rows.

    Args:
        num_patches: N.
        sparse_ratio: the share of them that are kept, which sets K.
    """

    records = ("head_rollout",)
    needs = frozenset({"grid"})

    def __init__(self, *, num_patches: int, sparse_ratio: float, **_others: object) -> None:
        super().__init__()
        self.num_votes = num_kept(num_patches, sparse_ratio)

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) alike in all modalities."""
        rows = info.recorded["head_rollout"]  # (B, M, H, N)
        heads = rows.shape[2]
        voters = None if present is None else present.repeat_interleave(heads, dim=1)
        value = count_votes(rows.flatten(1, 2), self.num_votes, voters)  # (B, N)
        return Scores(value.unsqueeze(1).expand(-1, tokens.shape[1], -1))
