"""The order of the gallery for single queries, with the mask that the metric uses.

Shapes: N samples, D width, Q queries, G gallery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.splits import EvalSplit
from engine.metrics import ignored_pairs, pairwise_distance, rank_distances
from engine.reranking import rerank


@dataclass(frozen=True)
class Match:
    """One gallery image in the ranking of a query."""

    index: int
    """Position in the split's samples."""
    rank: int
    """Counts from 1, without the images that the protocol ignores."""
    distance: float
    """Euclidean, or re-ranked."""
    correct: bool


@dataclass(frozen=True)
class Ranking:
    """The distances of all queries, and the pairs that the protocol ignores."""

    distance: Tensor
    """(Q, G) squared Euclidean, or re-ranked."""
    positive: Tensor
    """(Q, G) bool, True for the same identity."""
    ignored: Tensor
    """(Q, G) bool, True for pairs that are not ranked."""
    ap: Tensor
    """(Q,) average precision, nan for a query without a match."""
    gallery: np.ndarray
    """(G,) positions in the split's samples."""
    reranked: bool

    @classmethod
    def from_split(cls, features: Tensor, split: EvalSplit, *, reranked: bool = False) -> Ranking:
        """Rank the gallery of `split` by features (N, D) of its samples."""
        pid, group, q, g = map(torch.from_numpy, (split.pids, split.groups, split.query, split.gallery))
        distance = (rerank if reranked else pairwise_distance)(features[q], features[g])
        labels = pid[q], group[q], pid[g], group[g]
        ap = rank_distances(distance, *labels).ap
        return cls(distance, pid[q, None] == pid[g], ignored_pairs(*labels), ap, split.gallery, reranked)

    def matches(self, query: int) -> list[Match]:
        """List the whole ranking of a query, nearest first; equal distances are ordered by gallery position."""
        kept = (~self.ignored[query]).nonzero().squeeze(1)
        order = kept[self.distance[query, kept].argsort(stable=True)]
        distance = self.distance[query, order] if self.reranked else self.distance[query, order].sqrt()
        ordered = zip(order.tolist(), distance.tolist(), self.positive[query, order].tolist(), strict=True)
        return [Match(int(self.gallery[g]), rank, d, correct) for rank, (g, d, correct) in enumerate(ordered, start=1)]

    def by_ap(self) -> list[int]:
        """List the queries that have a match, worst average precision first; equal ones are ordered by position."""
        valid = (~self.ap.isnan()).nonzero().squeeze(1)
        return valid[self.ap[valid].argsort(stable=True)].tolist()


def mistaken_for(matches: Sequence[Match], pids: Sequence[int]) -> Counter[int]:
    """Count, by identity, the images that are ranked before the first correct one."""
    ahead: Counter[int] = Counter()
    for match in matches:
        if match.correct:
            break
        ahead[int(pids[match.index])] += 1
    return ahead
