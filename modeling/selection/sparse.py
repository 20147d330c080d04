"""TokenSparse: keep the best patches, with a decision that can carry gradient, and fold the rest into one token.

Shapes: B batch, N patches, S kept patches, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.selection.types import SparseTokens

ROUNDING = 1e-9
"""Guards floor and ceil against float error: 100 x 0.29 is 28.999999999999996, and 100 x 0.07 is 7.000000000000001."""


def num_kept(num_patches: int, sparse_ratio: float) -> int:
    """N_s = max(1, ceil(rho N))."""
    return max(1, math.ceil(sparse_ratio * num_patches - ROUNDING))


def annealed_ratio(sparse_ratio: float, epoch: int, anneal_epochs: int) -> float:
    """Let the share of kept patches fall from 1 to `sparse_ratio` by half a cosine over the first `anneal_epochs`.

    This is EViT's schedule (Liang et al., ICLR 2022, sec. 4.1) with a step for each epoch, counted from 0.
    """
    if epoch >= anneal_epochs:
        return sparse_ratio
    return sparse_ratio + (1 - sparse_ratio) * (1 + math.cos(math.pi * epoch / anneal_epochs)) / 2


class TokenSparse(nn.Module):
    """Keep the ceil(rho N) best-ranked patches; it has no parameters.

    Which patches are kept has no gradient. In training with Gumbel, the decision D therefore takes that of a softmax,
    straight through: D = hard + soft - stop_gradient(soft) with soft = softmax((score + g) / tau) and Gumbel noise g.
    Its value stays 1 for the kept patches and 0 for the others. The score gains by this gradient only if something uses
    D, as the mask of an aggregation does.

    Args:
        sparse_ratio: rho, the share of patches that are kept.
        extra_token: fold the dropped patches into one token; False forgets them.
        gate: let the kept patches count by their scores (`kept_gates`).
        anneal_epochs: epochs over which the share falls from 1, less one patch, to rho in training; 0: it is rho from
            the start.
        use_gumbel: give D this gradient in training.
        gumbel_tau: temperature of the softmax.
        gumbel_sample: in training with Gumbel, rank by score + g instead of the score, which samples without
            replacement.
    """

    def __init__(
        self,
        *,
        sparse_ratio: float,
        extra_token: bool,
        gate: bool,
        anneal_epochs: int,
        use_gumbel: bool,
        gumbel_tau: float,
        gumbel_sample: bool,
    ) -> None:
        super().__init__()
        self.sparse_ratio = sparse_ratio
        self.extra_token = extra_token
        self.gate = gate
        self.anneal_epochs = anneal_epochs
        self.use_gumbel = use_gumbel
        self.gumbel_tau = gumbel_tau
        self.gumbel_sample = gumbel_sample
        self._training_ratio = sparse_ratio

    def start_epoch(self, epoch: int) -> None:
        """Set the share that is kept in the training epoch number `epoch`, counted from 0."""
        self._training_ratio = annealed_ratio(self.sparse_ratio, epoch, self.anneal_epochs)

    def _count(self, num_patches: int) -> int:
        final = num_kept(num_patches, self.sparse_ratio)
        if not self.training or final == num_patches:
            return final
        # At least one patch is dropped, too, while the share falls: then the score has the same way to the loss in all
        # steps, through the extra token, and without that DistributedDataParallel stops (`engine.parallel`).
        return min(num_kept(num_patches, self._training_ratio), num_patches - 1)

    def forward(self, patches: Tensor, score: Tensor) -> SparseTokens:
        """Select among `patches` (B, N, C) by their `score` (B, N) float32."""
        noise = _gumbel_noise(score) if self.training and self.use_gumbel else None
        ranking = score if noise is None or not self.gumbel_sample else score + noise

        S = self._count(patches.shape[1])
        # A stable sort, not topk: equal scores go by patch index, so that a run can be repeated.
        indices = ranking.detach().argsort(dim=1, descending=True, stable=True)[:, :S]  # (B, S)
        hard = torch.zeros_like(score).scatter(1, indices, 1.0)
        decision = hard
        if noise is not None:
            soft = ((score + noise) / self.gumbel_tau).softmax(dim=1)
            decision = hard + (soft - soft.detach())

        extra = None
        if self.extra_token and patches.shape[1] > S:
            weights = score.masked_fill(hard.bool(), -math.inf).softmax(dim=1)  # (B, N), over the dropped
            extra = weights.to(patches.dtype).unsqueeze(1) @ patches
        kept = patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[2]))
        gates = kept_gates(score, indices, extra is not None) if self.gate else None
        return SparseTokens(kept, extra, decision, indices, gates)


def kept_gates(score: Tensor, indices: Tensor, has_extra: bool) -> Tensor:
    """Return how much each kept patch counts, 2 sigmoid(score - mean score): 1 for an average patch, below 2 for any.

    Args:
        score: (B, N) float32.
        indices: (B, S) int64, the kept patches.
        has_extra: add the extra token, which counts as an average patch.

    Returns:
        (B, S), or with the extra token (B, S+1).
    """
    gates = 2 * (score - score.mean(dim=1, keepdim=True)).gather(1, indices).sigmoid()
    # The logarithm of a gate joins the logits of attention, so it may not be 0.
    gates = gates.clamp_min(torch.finfo(gates.dtype).tiny)
    return F.pad(gates, (0, 1), value=1.0) if has_extra else gates


def _gumbel_noise(score: Tensor) -> Tensor:
    """Draw standard Gumbel noise; the exponential variate is kept off 0, whose logarithm is -inf."""
    return -torch.empty_like(score).exponential_().clamp_min(torch.finfo(score.dtype).tiny).log()
