"""A patch selection scores the patches, keeps the best, and aggregates them: score x keep x aggregate.

    score      how much each patch is worth keeping      `scores/`
    keep       the best of them, and the extra token     `sparse.py`
    aggregate  what becomes of those that are kept       `aggregations/`

Shapes: B batch, M modality, N patches, C width, S kept patches, T tokens that come out of the aggregation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from modeling.selection.aggregations import AGGREGATIONS
from modeling.selection.scores import SCORES
from modeling.selection.sparse import TokenSparse, num_kept
from modeling.selection.types import Selection


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
        aggr_ratio: alpha, the share of the kept patches that come out of a learned aggregation.
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
        self.num_patches = num_patches
        self.score = SCORES[score](
            embed_dim=embed_dim,
            grid=grid,
            beta=beta,
            use_predictor=use_predictor,
            detach_attention=detach_attention,
            modalities=modalities,
        )
        self.sparse = TokenSparse(
            sparse_ratio=sparse_ratio, use_gumbel=use_gumbel, gumbel_tau=gumbel_tau, gumbel_sample=gumbel_sample
        )
        kind = AGGREGATIONS[aggregation]
        num_tokens = kind.count(num_patches, sparse_ratio, aggr_ratio)
        self.num_outputs = num_tokens + (num_kept(num_patches, sparse_ratio) < num_patches)
        self.aggregation = nn.ModuleDict({name: kind(embed_dim, num_tokens) for name in modalities})
        self.mask_aggregation = mask_aggregation and kind.uses_mask

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> tuple[Tensor, Selection]:
        """Tokens (B, M, 1+N, C), global first, to (B, M, T+1, C): T aggregated and, if any is dropped, the extra one.

        With `present` (B, M) bool, the global of an absent modality does not contribute to any score, and the tokens
        that come out for the absent modality itself are meaningless.
        """
        patches, scores = tokens[:, :, 1:], self.score(tokens, present)
        outputs, indices, all_weights = [], [], []
        for m, aggregation in enumerate(self.aggregation.values()):
            sparse = self.sparse(patches[:, m], scores.value[:, m])
            if self.mask_aggregation and sparse.decision.requires_grad:  # D has a gradient only in training with Gumbel
                aggregated, weights = aggregation(patches[:, m], sparse.decision)
                # Report the weights of the kept patches, in the order of `indices`; those of the others are 0.
                weights = weights.gather(2, sparse.indices.unsqueeze(1).expand(-1, weights.shape[1], -1))
            else:
                aggregated, weights = aggregation(sparse.kept)
            outputs.append(aggregated if sparse.extra is None else torch.cat([aggregated, sparse.extra], dim=1))
            indices.append(sparse.indices)
            all_weights.append(weights)
        return torch.stack(outputs, dim=1), Selection(
            indices=tuple(indices),
            score=scores.value.detach().unbind(1),
            weights=None if all_weights[0] is None else tuple(weights.detach() for weights in all_weights),
            parts={name: part.detach().unbind(1) for name, part in scores.parts.items()},
        )
