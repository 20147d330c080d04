"""A patch selection scores the patches, keeps the best, and aggregates them: score x keep x aggregate.

    score      how much each patch is worth keeping      `scores/`
    keep       the best of them, and the extra token     `sparse.py`
    aggregate  what becomes of those that are kept       `aggregations/`

Shapes: B batch, M modality, N patches, C width, S kept patches, T tokens that come out of the aggregation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.sample import MODALITIES
from modeling.selection.aggregations import AGGREGATIONS
from modeling.selection.scores import SCORES
from modeling.selection.sparse import TokenSparse, num_kept
from modeling.selection.types import UNKNOWN, KeptInfo, Selection, SparseTokens, TokenInfo


class PatchSelection(nn.Module):
    """Select among the patches of each modality, with parameters of its own and the globals of all modalities.

    In training with Gumbel and `mask_aggregation`, the aggregation sees all N patches, with the decision D of
    `TokenSparse` as its mask. The tokens have the value that the kept patches give, but the gradient reaches the score
    of dropped patches, too. In all other cases only the kept patches are aggregated, and the score learns through the
    extra token alone.

    Args:
        embed_dim: width C of the tokens.
        num_patches: N, patches per modality that come in.
        grid: rows and columns of these patches; None where they no longer lie on a grid, which some scores need.
        score: a name in `SCORES`.
        aggregation: a name in `AGGREGATIONS`.
        sparse_ratio: rho, the share of patches that are kept.
        aggr_ratio: alpha, the share of the kept patches that come out of an aggregation that shrinks them.
        extra_token, gate, anneal_epochs: see `TokenSparse`.
        beta, use_predictor, detach_attention: see `SDTPSScore`.
        use_gumbel, gumbel_tau, gumbel_sample: see `TokenSparse`.
        mask_aggregation: let the aggregation see D; False never does.
        modalities: names along M.
    """

    def __init__(
        self,
        embed_dim: int,
        num_patches: int,
        *,
        grid: tuple[int, int] | None,
        score: str,
        aggregation: str,
        sparse_ratio: float,
        aggr_ratio: float,
        extra_token: bool,
        gate: bool,
        anneal_epochs: int,
        beta: float,
        use_predictor: bool,
        detach_attention: bool,
        use_gumbel: bool,
        gumbel_tau: float,
        gumbel_sample: bool,
        mask_aggregation: bool,
        modalities: Sequence[str] = MODALITIES,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.num_patches = num_patches
        self.score_options: dict[str, Any] = {
            "embed_dim": embed_dim,
            "num_patches": num_patches,
            "grid": grid,
            "sparse_ratio": sparse_ratio,
            "beta": beta,
            "use_predictor": use_predictor,
            "detach_attention": detach_attention,
            "modalities": modalities,
        }
        self.score = SCORES[score](**self.score_options)
        self.sparse = TokenSparse(
            sparse_ratio=sparse_ratio,
            extra_token=extra_token,
            gate=gate,
            anneal_epochs=anneal_epochs,
            use_gumbel=use_gumbel,
            gumbel_tau=gumbel_tau,
            gumbel_sample=gumbel_sample,
        )
        kind = AGGREGATIONS[aggregation]
        num_tokens = kind.count(num_patches, sparse_ratio, aggr_ratio)
        self.num_outputs = num_tokens + (extra_token and num_kept(num_patches, sparse_ratio) < num_patches)
        self.aggregation = nn.ModuleDict({name: kind(embed_dim, num_tokens) for name in modalities})
        self.mask_aggregation = mask_aggregation and kind.uses_mask
        self.tracks_sizes = kind.tracks_sizes
        self.records = (*self.score.records, *kind.records)

    def forward(
        self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN
    ) -> tuple[Tensor, Selection]:
        """Tokens (B, M, 1+N, C), global first, to (B, M, T+1, C): T aggregated and, if any is dropped, the extra one.

        With `present` (B, M) bool, the global of an absent modality does not contribute to any score, and the tokens
        that come out for the absent modality itself are meaningless. `info` is what is known of the N patches.
        """
        patches, scores = tokens[:, :, 1:], self.score(tokens, present, info)
        outputs, indices, all_weights, all_sizes = [], [], [], []
        for m, aggregation in enumerate(self.aggregation.values()):
            sparse = self.sparse(patches[:, m], scores.value[:, m])
            if self.mask_aggregation and sparse.decision.requires_grad:  # D has a gradient only in training with Gumbel
                aggregated, weights = aggregation(patches[:, m], sparse.decision)
                # Report the weights of the kept patches, in the order of `indices`; those of the others are 0.
                weights = weights.gather(2, sparse.indices.unsqueeze(1).expand(-1, weights.shape[1], -1))
            else:
                kept = _describe_kept(info, m, sparse) if self.tracks_sizes else None
                aggregated, weights = aggregation(sparse.kept, kept=kept)
            outputs.append(aggregated if sparse.extra is None else torch.cat([aggregated, sparse.extra], dim=1))
            indices.append(sparse.indices)
            all_weights.append(weights)
            if self.tracks_sizes:
                all_sizes.append(_merged_sizes(info, m, sparse, weights))
            elif sparse.gates is not None:
                all_sizes.append(_gated_sizes(info, m, sparse))
        return torch.stack(outputs, dim=1), Selection(
            indices=tuple(indices),
            score=scores.value.detach().unbind(1),
            weights=None if all_weights[0] is None else tuple(weights.detach() for weights in all_weights),
            parts={name: part.detach().unbind(1) for name, part in scores.parts.items()},
            sizes=torch.stack(all_sizes, dim=1) if all_sizes else None,
            pooled=scores.pooled,
        )


def _sizes_before(info: TokenInfo, m: int, sparse: SparseTokens) -> Tensor:
    """Return as how many patches of the image each of the N tokens of modality `m` counts: (B, N) float32."""
    return torch.ones_like(sparse.decision) if info.sizes is None else info.sizes[:, m]


def _describe_kept(info: TokenInfo, m: int, sparse: SparseTokens) -> KeptInfo:
    keys = info.recorded["keys"][:, m]
    return KeptInfo(
        places=sparse.indices,
        keys=keys.gather(1, sparse.indices.unsqueeze(-1).expand(-1, -1, keys.shape[-1])),
        sizes=_sizes_before(info, m, sparse).gather(1, sparse.indices),
    )


def _gated_sizes(info: TokenInfo, m: int, sparse: SparseTokens) -> Tensor:
    """Multiply the sizes of the kept tokens of modality `m`, and of the extra one, by their gates: (B, T+1)."""
    kept = _sizes_before(info, m, sparse).gather(1, sparse.indices)
    return sparse.gates * (kept if sparse.extra is None else F.pad(kept, (0, 1), value=1.0))


def _merged_sizes(info: TokenInfo, m: int, sparse: SparseTokens, weights: Tensor) -> Tensor:
    """Count how many patches of the image each token of modality `m` stands for: (B, T+1), the extra one last."""
    before = _sizes_before(info, m, sparse)
    # A sum and no product of matrices, which autocast would round: the sizes stay whole numbers.
    sizes = ((weights > 0) * before.gather(1, sparse.indices).unsqueeze(1)).sum(dim=-1)  # (B, T)
    if sparse.extra is None:
        return sizes
    return torch.cat([sizes, (before.sum(dim=1) - sizes.sum(dim=1)).unsqueeze(1)], dim=1)
