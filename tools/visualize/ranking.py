"""Who comes before whom: the order of the gallery for single queries, by the very mask that the metric uses.

Shapes: N samples, D width, Q queries, G gallery.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.metrics import ignored_pairs, pairwise_distance, rank_distances
from engine.reranking import rerank


@dataclass(frozen=True)
class Match:
    """One gallery image in the ranking of a query."""

    index: int
    """Position in the split's samples."""
    rank: int
    """From 1, among what the protocol leaves in."""
    distance: float
    """Euclidean, or re-ranked."""
    correct: bool


@dataclass(frozen=True)
class Ranking:
    """The distances of all queries, and what the protocol takes out."""

    distance: Tensor
    """(Q, G) squared Euclidean, or re-ranked."""
    positive: Tensor
    """(Q, G) bool, the same identity."""
    ignored: Tensor
    """(Q, G) bool, taken out of the ranking."""
    ap: Tensor
    """(Q,) average precision, nan for a query without a match."""
    gallery: np.ndarray
    """(G,) positions in the split's samples."""
    reranked: bool = False

    @classmethod
    def of(
        cls,
        features: Tensor,
        pids: np.ndarray,
        views: np.ndarray,
        query: np.ndarray,
        gallery: np.ndarray,
        *,
        reranked: bool = False,
    ) -> Ranking:
        """From features (N, D), identities and views (N,), and positions of queries (Q,) and gallery (G,) in them."""
        pid, view = torch.from_numpy(pids), torch.from_numpy(views)
        q, g = torch.from_numpy(query), torch.from_numpy(gallery)
        distance = (rerank if reranked else pairwise_distance)(features[q], features[g])
        return cls(
            distance,
            pid[q, None] == pid[g],
            ignored_pairs(pid[q], view[q], pid[g], view[g]),
            rank_distances(distance, pid[q], view[q], pid[g], view[g]).ap,
            gallery,
            reranked,
        )

    def matches(self, query: int) -> list[Match]:
        """The whole ranking of the `query`-th query, nearest first; equal distances go by gallery position."""
        kept = (~self.ignored[query]).nonzero().squeeze(1)
        order = kept[self.distance[query, kept].argsort(stable=True)]
        distance = self.distance[query, order] if self.reranked else self.distance[query, order].sqrt()
        of_order = zip(order.tolist(), distance.tolist(), self.positive[query, order].tolist(), strict=True)
        return [Match(int(self.gallery[g]), rank, d, correct) for rank, (g, d, correct) in enumerate(of_order, start=1)]

    def by_ap(self) -> list[int]:
        """The queries that have a match, worst average precision first; equals by position."""
        valid = (~self.ap.isnan()).nonzero().squeeze(1)
        return valid[self.ap[valid].argsort(stable=True)].tolist()


def mistaken_for(matches: list[Match], pids: np.ndarray) -> Counter[int]:
    """How many images of which other identities stand before the first correct one."""
    ahead: Counter[int] = Counter()
    for match in matches:
        if match.correct:
            break
        ahead[int(pids[match.index])] += 1
    return ahead
