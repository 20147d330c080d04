"""Distances, mAP, CMC and mINP, from the rank of each positive; no model, no files.

A mean AP needs only where in the ranking each positive stands, not the ranking itself. So the gallery is not sorted:
its distances are binned between the few positives of each query, and counted.

Shapes: Q queries, G gallery, E width, P the largest number of positives of a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import UserError

MAX_RANK = 50
CHUNK_ELEMENTS = 2**24
"""Elements of the Q x G matrix that are held at a time."""
LAST = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class RankingResult:
    """Figures as fractions of 1, over the queries that have a valid match."""

    mAP: float  # noqa: N815 - the field's name
    cmc: Tensor
    """(MAX_RANK + 1,): cmc[r] is the share of queries with a match among the first r; cmc[0] is 0."""
    mINP: float  # noqa: N815
    """Mean inverse negative penalty (Ye et al., TPAMI 2021): positives / rank of the last one."""
    ap: Tensor
    """(Q,) average precision by query, nan without a valid match."""
    num_queries: int
    num_valid_queries: int


def pairwise_distance(query: Tensor, gallery: Tensor) -> Tensor:
    """Squared Euclidean distances (Q, G) of features (Q, E) and (G, E), in float32."""
    query, gallery = query.float(), gallery.float()
    squares = query.pow(2).sum(1, keepdim=True) + gallery.pow(2).sum(1)
    return squares.addmm_(query, gallery.T, alpha=-2).clamp_min_(0)


def sort_keys(distance: Tensor) -> Tensor:
    """(Q, G) int64 that order as (distance, gallery index) does: no two are equal, and ties go by gallery index."""
    bits = (distance.float() + 0.0).view(torch.int32).long()  # + 0.0 makes -0.0 a 0.0
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats order backwards in their bits
    return (bits << 32) + torch.arange(distance.shape[1], device=distance.device)


def positive_ranks(distance: Tensor, positive: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """Where each query's positives stand in its ranking.

    Args:
        distance: (Q, G).
        positive: (Q, G) bool, the matches; those that are ignored do not count.
        ignored: (Q, G) bool, taken out of the ranking.

    Returns:
        The 1-based ranks (Q, P), ascending, 0 where a query has fewer than P; and the counts of positives (Q,).
    """
    positive = positive & ~ignored
    counts = positive.sum(dim=1)
    most = max(int(counts.max()), 1)
    keys = sort_keys(distance).masked_fill_(ignored, LAST)
    # Ascending keys of the positives, padded with LAST.
    edges = keys.masked_fill(~positive, LAST).topk(most, dim=1, largest=False, sorted=True).values
    # bin b of a gallery key: b positives have a smaller key. A positive's own bin is its position.
    bins = torch.searchsorted(edges, keys)
    filled = torch.zeros(len(keys), most + 1, dtype=torch.int64, device=keys.device)
    filled.scatter_add_(1, bins, (~ignored).long())
    ranks = filled.cumsum(dim=1)[:, :most]
    exists = torch.arange(most, device=keys.device) < counts.unsqueeze(1)
    return ranks * exists, counts


def evaluate_ranking(
    query: Tensor,
    query_pid: Tensor,
    query_view: Tensor,
    gallery: Tensor,
    gallery_pid: Tensor,
    gallery_view: Tensor,
    *,
    distance: Tensor | None = None,
) -> RankingResult:
    """Rank the gallery by distance for every query, leaving out what has its identity *and* its view.

    Args:
        query: (Q, E) features; `gallery`: (G, E).
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_view: (Q,) camera or scene, as the protocol says; `gallery_view`: (G,).
        distance: (Q, G), instead of the squared Euclidean distance of the features.

    Raises:
        UserError: no query has a valid match, or a feature is not finite.
    """
    if not (torch.isfinite(query).all() and torch.isfinite(gallery).all()):
        raise UserError("The features to be ranked hold nan or inf. The weights are broken, or SOLVER.AMP overflows: try off.")
    chunk = max(1, CHUNK_ELEMENTS // max(1, len(gallery)))
    parts = []
    for start in range(0, len(query), chunk):
        rows = slice(start, start + chunk)
        same_id = query_pid[rows, None] == gallery_pid
        ignored = same_id & (query_view[rows, None] == gallery_view)
        of_chunk = pairwise_distance(query[rows], gallery) if distance is None else distance[rows]
        parts.append(_scores(*positive_ranks(of_chunk, same_id, ignored)))
    ap, first, inp = (torch.cat(values) for values in zip(*parts, strict=True))
    valid = first > 0
    if not valid.any():
        raise UserError(
            f"No query has a match in the gallery of another view. Query identities: {_some(query_pid)}; views: "
            f"{_some(query_view)}. Gallery identities: {_some(gallery_pid)}; views: {_some(gallery_view)}. An "
            "identity must "
            "be seen by at least two cameras (or scenes, as the protocol says)."
        )
    ranks = torch.arange(MAX_RANK + 1, device=first.device)
    cmc = (first[valid].unsqueeze(1) <= ranks).double().mean(dim=0)
    return RankingResult(
        mAP=ap[valid].mean().item(),
        cmc=cmc.cpu(),
        mINP=inp[valid].mean().item(),
        ap=ap.masked_fill(~valid, torch.nan).cpu(),
        num_queries=len(query),
        num_valid_queries=int(valid.sum()),
    )


def _scores(ranks: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision, rank of the first positive (0 without one) and INP, each (Q,)."""
    order = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    exists = ranks > 0
    precision = (order * exists).double() / ranks.clamp_min(1)  # at the rank of each positive
    number = counts.clamp_min(1)
    return precision.sum(dim=1) / number, ranks[:, 0], counts.double() / ranks.amax(dim=1).clamp_min(1)


def _some(values: Tensor) -> str:
    distinct = values.unique().tolist()
    return ", ".join(map(str, distinct[:8])) + (", ..." if len(distinct) > 8 else "")
