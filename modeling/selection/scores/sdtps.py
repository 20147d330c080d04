"""The cross-modal score of SDTPS (SEPS, "Semantic-Enhanced Patch Slimming", eq. 1-3).

Shapes: B batch, M modality, N patches, C width, G globals that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.sample import MODALITIES
from modeling.selection.scores.base import Score
from modeling.selection.types import UNKNOWN, Scores, TokenInfo

CONSTANT_ROW = 1e-6
"""A row of cosines that spans less than this is constant: its min-max scaling gives zeros."""


class SDTPSScore(Score):
    """Score a patch by an MLP and by its cosines with the globals of all modalities (SEPS eq. 1-3).

    score = (1 - 2 beta) s_p + beta (s_m2 + s_m3 + 2 s_im), with parameters of its own for each modality. s_p comes from
    the MLP (eq. 1). s_im is the cosine with the global of the same modality, s_m2 and s_m3 are those with
    the globals of the two others (eq. 2), each scaled to [0, 1] over the patches of the image.

    Args:
        embed_dim: width C of the patches.
        beta: weight of the cosines.
        use_predictor: False leaves the MLP out, score = s_im + s_m2 + s_m3, as SEPS's public code does.
        detach_attention: compute the cosines without gradient.
        modalities: names along M.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        beta: float,
        use_predictor: bool,
        detach_attention: bool,
        modalities: Sequence[str] = MODALITIES,
        **_others: object,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.use_predictor = use_predictor
        self.detach_attention = detach_attention
        predictors = {name: _predictor(embed_dim) for name in modalities} if use_predictor else {}
        self.predictor = nn.ModuleDict(predictors)

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score the patches of tokens (B, M, 1+N, C); the global of an absent modality contributes 0."""
        with torch.autocast(tokens.device.type, enabled=False):
            globals_, patches = tokens[:, :, 0].float(), tokens[:, :, 1:].float()
            attention = torch.stack(
                [self._attention(patches[:, m], globals_, present, m) for m in range(tokens.shape[1])], dim=1
            )
            if not self.use_predictor:
                return Scores(attention, {"attention": attention})
            predicted = [
                predictor(patches[:, m]).squeeze(-1).sigmoid() for m, predictor in enumerate(self.predictor.values())
            ]
            predicted = torch.stack(predicted, dim=1)
        value = (1 - 2 * self.beta) * predicted + self.beta * attention
        return Scores(value, {"predicted": predicted, "attention": attention})

    def _attention(self, patches: Tensor, globals_: Tensor, present: Tensor | None, m: int) -> Tensor:
        """Return s_m2 + s_m3 + 2 s_im (B, N) of modality `m`; without a predictor each counts once."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_attention):
            scores = cosine_scores(patches, own_first(globals_, m))  # (B, G, N)
            if present is not None:
                scores = scores * own_first(present, m).unsqueeze(-1)
            own, others = scores[:, 0], scores[:, 1:].sum(dim=1)
            return others + 2 * own if self.use_predictor else own + others


class OpenCodeScore(SDTPSScore):
    """Score a patch as the public code of SEPS does: the sum of the three cosines, without the MLP."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "use_predictor": False})


def _predictor(embed_dim: int) -> nn.Sequential:
    """Eq. 1, before its sigmoid."""
    return nn.Sequential(nn.Linear(embed_dim, embed_dim // 4), nn.GELU(), nn.Linear(embed_dim // 4, 1))


def cosine_scores(patches: Tensor, sources: Tensor) -> Tensor:
    """Return the cosine of `patches` (B, N, C) with `sources` (B, G, C), scaled over the patches to [0, 1]: (B, G, N).

    A vector of zeros has cosine 0; a constant row gives zeros.
    """
    cosine = F.normalize(sources, dim=-1) @ F.normalize(patches, dim=-1).transpose(1, 2)
    low = cosine.amin(dim=-1, keepdim=True)  # aminmax has no derivative
    span = cosine.amax(dim=-1, keepdim=True) - low
    return torch.where(span > CONSTANT_ROW, (cosine - low) / span.clamp_min(CONSTANT_ROW), 0.0)


def own_first(values: Tensor, m: int) -> Tensor:
    """Move modality `m` of values (B, M, ...) to the front; slices, because indices would be copied to the device."""
    return torch.cat([values[:, m : m + 1], values[:, :m], values[:, m + 1 :]], dim=1)
