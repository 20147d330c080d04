"""SDTPS: cross-modal patch selection and aggregation, after SEPS ("Semantic-Enhanced Patch Slimming").

Each modality scores its patches with an MLP and with the globals of all modalities (eq. 1-3), keeps the best
(`TokenSparse`), folds the rest into one extra token, and aggregates the kept ones to a few (`TokenAggregation`, eq. 4).

The straight-through decision matrix D enters the aggregation as a *factor*, W = D exp(l) / sum(D exp(l)). SEPS writes
it as a term, softmax(l - (1 - D) 1e10): the same W for a hard D, but d(logits)/dD = 1e10 multiplies every gradient
that reaches the score, and 1e10 is inf in float16 (tests/modeling/test_sdtps_gradient.py measures both). Without
Gumbel the predictor learns through the extra token alone, because the top-K itself has no gradient.

Shapes: B batch, M modality, N patches, C width, S kept patches, T aggregated tokens, G globals that score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.sample import MODALITIES

ROUNDING = 1e-9
"""Guards floor and ceil against float error: 100 x 0.29 is 28.999999999999996 and counts as 29."""
CONSTANT_ROW = 1e-6
"""A row of cosines that spans less than this is constant: its min-max scaling gives zeros."""
MAX_LOGIT_GAP = 10.0
"""How far above the largest kept logit a dropped one counts in the gradient of D; bounds it by exp(10)."""


def num_kept(num_patches: int, sparse_ratio: float) -> int:
    """N_s = max(1, ceil(rho N))."""
    return max(1, math.ceil(sparse_ratio * num_patches - ROUNDING))


def num_aggregated(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
    """N_c = max(1, floor(alpha rho N))."""
    return max(1, math.floor(aggr_ratio * sparse_ratio * num_patches + ROUNDING))


@dataclass(frozen=True, slots=True)
class SparseTokens:
    """What `TokenSparse` makes of the patches of one modality."""

    kept: Tensor
    """(B, S, C), best score first."""
    extra: Tensor | None
    """(B, 1, C), the dropped patches weighted by the softmax of their scores; None when nothing is dropped."""
    decision: Tensor
    """(B, N), D: 1 for kept, 0 for dropped; carries the straight-through gradient in training with Gumbel on."""
    indices: Tensor
    """(B, S) int64, the kept patches."""
    score: Tensor
    """(B, N) float32."""
    predicted: Tensor | None
    """(B, N) float32, s_p; None without a predictor."""
    attention: Tensor
    """(B, N) float32, the sum of the attention scores that the score has."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What SDTPS kept, for pictures and diagnostics; one entry per modality."""

    indices: tuple[Tensor, ...]
    """M x (B, S) int64, kept patches, best first."""
    score: tuple[Tensor, ...]
    """M x (B, N) float32."""
    weights: tuple[Tensor, ...]
    """M x (B, T, S) float32, how each aggregated token is made of the kept patches (in the order of `indices`)."""
    predicted: tuple[Tensor, ...] | None
    """M x (B, N) float32, s_p, the predictor's part of the score; None without one."""
    attention: tuple[Tensor, ...]
    """M x (B, N) float32, s_m2 + s_m3 + 2 s_im; without a predictor, s_im + s_m2 + s_m3."""


class TokenSparse(nn.Module):
    """Score the patches of one modality and keep the best (SEPS eq. 1-3).

    Args:
        embed_dim: width C of the patches.
        sparse_ratio: rho, the share of patches kept.
        beta: weight of the attention scores, score = (1 - 2 beta) s_p + beta (sum of others + 2 own).
        use_gumbel: in training, D gets the gradient of softmax((score + Gumbel noise) / tau), straight through.
        gumbel_sample: in training with Gumbel, keep the top-K of score + noise instead of the top-K of score.
        use_predictor: False leaves the MLP out: score = own + others (SEPS's public code).
        detach_attention: compute the attention scores without gradient.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        sparse_ratio: float = 0.5,
        beta: float = 0.25,
        use_gumbel: bool = False,
        gumbel_tau: float = 1.0,
        gumbel_sample: bool = False,
        use_predictor: bool = True,
        detach_attention: bool = True,
    ) -> None:
        super().__init__()
        self.sparse_ratio = sparse_ratio
        self.beta = beta
        self.use_gumbel = use_gumbel
        self.gumbel_tau = gumbel_tau
        self.gumbel_sample = gumbel_sample
        self.detach_attention = detach_attention
        self.score_predictor = (
            nn.Sequential(nn.Linear(embed_dim, embed_dim // 4), nn.GELU(), nn.Linear(embed_dim // 4, 1))
            if use_predictor
            else None
        )

    def forward(
        self, patches: Tensor, own_global: Tensor, other_globals: Tensor, present: Tensor | None = None
    ) -> SparseTokens:
        """Select among `patches` (B, N, C), given `own_global` (B, C) and the others' `other_globals` (B, G-1, C).

        `present` (B, G) bool, own first, tells which of the globals score at all; None: all of them.
        """
        predicted, attention = self._score_parts(patches, own_global, other_globals, present)
        score = self._combine(predicted, attention)
        noise = self._gumbel_noise(score) if self.training and self.use_gumbel else None
        ranking = score if noise is None or not self.gumbel_sample else score + noise

        S = num_kept(patches.shape[1], self.sparse_ratio)
        # A stable sort, not topk: equal scores go by patch index, so that a run can be repeated.
        indices = ranking.detach().argsort(dim=1, descending=True, stable=True)[:, :S]  # (B, S)
        hard = torch.zeros_like(score).scatter(1, indices, 1.0)
        decision = hard
        if noise is not None:
            soft = ((score + noise) / self.gumbel_tau).softmax(dim=1)
            decision = hard + (soft - soft.detach())

        extra = None
        if patches.shape[1] > S:
            weights = score.masked_fill(hard.bool(), -math.inf).softmax(dim=1)  # (B, N), over the dropped
            extra = weights.to(patches.dtype).unsqueeze(1) @ patches
        kept = patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[2]))
        return SparseTokens(kept, extra, decision, indices, score, predicted, attention)

    def _score_parts(
        self, patches: Tensor, own_global: Tensor, other_globals: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """s_p, if there is a predictor, and the sum of the attention scores, each (B, N); arguments as `forward`."""
        with torch.autocast(patches.device.type, enabled=False):
            patches = patches.float()
            sources = torch.cat([own_global.unsqueeze(1), other_globals], dim=1).float()  # (B, G, C)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_attention):
                attention = attention_scores(patches, sources)  # (B, G, N)
                if present is not None:
                    attention = attention * present.unsqueeze(-1)
            own, others = attention[:, 0], attention[:, 1:].sum(dim=1)
            if self.score_predictor is None:
                return None, own + others
            return self.score_predictor(patches).squeeze(-1).sigmoid(), others + 2 * own

    def _combine(self, predicted: Tensor | None, attention: Tensor) -> Tensor:
        """The score (B, N) of its two parts, both float32."""
        if predicted is None:
            return attention
        return (1 - 2 * self.beta) * predicted + self.beta * attention

    @staticmethod
    def _gumbel_noise(score: Tensor) -> Tensor:
        """Standard Gumbel noise; the exponential variate is kept off 0, whose logarithm is -inf."""
        return -torch.empty_like(score).exponential_().clamp_min(torch.finfo(score.dtype).tiny).log()


def attention_scores(patches: Tensor, sources: Tensor) -> Tensor:
    """Cosine of `patches` (B, N, C) with `sources` (B, G, C), min-max scaled over the patches: (B, G, N) in [0, 1].

    A vector of zeros has cosine 0; a constant row gives zeros.
    """
    cosine = F.normalize(sources, dim=-1) @ F.normalize(patches, dim=-1).transpose(1, 2)
    low = cosine.amin(dim=-1, keepdim=True)  # aminmax has no derivative
    span = cosine.amax(dim=-1, keepdim=True) - low
    return torch.where(span > CONSTANT_ROW, (cosine - low) / span.clamp_min(CONSTANT_ROW), 0.0)


class TokenAggregation(nn.Module):
    """Aggregate S tokens to T learned convex combinations of them (SEPS eq. 4).

    Args:
        embed_dim: width C of the tokens.
        num_tokens: T, tokens that come out.
    """

    def __init__(self, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        hidden_dim = int(0.2 * embed_dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(embed_dim),
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_tokens),
        )
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Combine `tokens` (B, S, C), those with `mask` (B, S) 0 left out, to (B, T, C) and the weights (B, T, S)."""
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


class SDTPS(nn.Module):
    """Selection and aggregation for all modalities, each with its own parameters and all modalities' globals.

    Args:
        embed_dim: width C of the tokens.
        num_patches: N, patches per modality that come in.
        aggr_ratio: alpha, the share of the kept patches that come out.
        mask_aggregation: in training with Gumbel on, aggregate over all N patches with D as the mask, so that a
            dropped patch can earn its place; False: the aggregation never sees D.
        modalities: their names.
        sparse_options: what `TokenSparse` takes.
    """

    def __init__(
        self,
        embed_dim: int,
        num_patches: int,
        *,
        sparse_ratio: float = 0.5,
        aggr_ratio: float = 0.4,
        mask_aggregation: bool = True,
        modalities: Sequence[str] = MODALITIES,
        **sparse_options: float | bool,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.modalities = tuple(modalities)
        self.mask_aggregation = mask_aggregation
        self.num_tokens = num_aggregated(num_patches, sparse_ratio, aggr_ratio)
        self.num_outputs = self.num_tokens + (num_kept(num_patches, sparse_ratio) < num_patches)
        self.sparse = nn.ModuleDict(
            {name: TokenSparse(embed_dim, sparse_ratio=sparse_ratio, **sparse_options) for name in self.modalities}
        )
        self.aggregation = nn.ModuleDict(
            {name: TokenAggregation(embed_dim, self.num_tokens) for name in self.modalities}
        )

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> tuple[Tensor, Selection]:
        """Tokens (B, M, 1+N, C), global first, to (B, M, T+1, C): T aggregated and the extra one (none if rho is 1).

        With `present` (B, M) bool, the global of an absent modality scores nothing; what comes out for the absent
        modality itself means nothing.
        """
        globals_, patches = tokens[:, :, 0], tokens[:, :, 1:]
        outputs, all_sparse, all_weights = [], [], []
        for m, name in enumerate(self.modalities):
            sources = None if present is None else torch.cat([present[:, m : m + 1], _without(present, m)], dim=1)
            sparse = self.sparse[name](patches[:, m], globals_[:, m], _without(globals_, m), sources)
            if sparse.decision.requires_grad and self.mask_aggregation:
                aggregated, weights = self.aggregation[name](patches[:, m], sparse.decision)
                weights = weights.detach().gather(2, sparse.indices.unsqueeze(1).expand(-1, weights.shape[1], -1))
            else:
                aggregated, weights = self.aggregation[name](sparse.kept)
            outputs.append(aggregated if sparse.extra is None else torch.cat([aggregated, sparse.extra], dim=1))
            all_sparse.append(sparse)
            all_weights.append(weights.detach())
        has_predictor = all_sparse[0].predicted is not None
        return torch.stack(outputs, dim=1), Selection(
            indices=tuple(sparse.indices for sparse in all_sparse),
            score=tuple(sparse.score.detach() for sparse in all_sparse),
            weights=tuple(all_weights),
            predicted=tuple(sparse.predicted.detach() for sparse in all_sparse) if has_predictor else None,
            attention=tuple(sparse.attention.detach() for sparse in all_sparse),
        )


def _without(x: Tensor, m: int) -> Tensor:
    """x (B, M, ...) without its `m`-th modality; by slices, since a list of positions would be copied to the device."""
    return torch.cat([x[:, :m], x[:, m + 1 :]], dim=1)
