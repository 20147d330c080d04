"""Votes: several rankings of the same patches joined in one score."""

from __future__ import annotations

import torch
from torch import Tensor


def count_votes(rankings: Tensor, num_votes: int, voters: Tensor | None = None) -> Tensor:
    """Count how many rankings place a patch among their best: (..., N) float32.

    The rankings' mean share of the patch, which is below 1, is added, so that it decides between equal counts.

    Args:
        rankings: (..., V, N) >= 0, V rankings of N patches.
        num_votes: how many patches each ranking votes for.
        voters: (..., V) bool, the rankings that count; None: all do.
    """
    best = rankings.argsort(dim=-1, descending=True, stable=True)[..., :num_votes]
    ballots = torch.zeros_like(rankings).scatter_(-1, best, 1.0)
    shares = rankings / rankings.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(rankings.dtype).tiny)
    counts = ballots + shares / rankings.shape[-2]
    if voters is not None:
        counts = counts * voters.unsqueeze(-1)
    return counts.sum(dim=-2)
