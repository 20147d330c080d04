"""Distances, mAP, CMC and mINP, from the rank of each positive; no model, no files.

These figures need only where in its ranking each positive stands, not the ranking itself. So no gallery is sorted: the
distances of a query are counted into equal buckets between its nearest and its farthest positive, which ranks a
positive up to the few images of its own bucket, and only those few are sorted (`positive_ranks`).

Shapes: Q queries, G gallery, E width, P the largest number of positives of a query, R buckets, K images to be sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import UserError

MAX_RANK = 50
CHUNK_ELEMENTS = 2**24
"""Elements of the Q x G matrix of distances that are made at a time."""
RANK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
"""Of those, ranked at a time: what stays in a CPU's cache, what keeps a card busy."""
IMAGES_PER_BUCKET = 4
"""On average: a positive shares its bucket with a few images, and the table of the buckets stays small beside G."""
SMALLEST_SPAN = 1e-30
"""Of a query whose positives are all equally far: the buckets' width stays above 0."""


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


def ignored_pairs(query_pid: Tensor, query_view: Tensor, gallery_pid: Tensor, gallery_view: Tensor) -> Tensor:
    """(Q, G) bool: what the protocol takes out of a query's ranking, its own identity seen in its own view.

    Args:
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_view: (Q,) camera or scene, as the protocol says; `gallery_view`: (G,).
    """
    return (query_pid[:, None] == gallery_pid) & (query_view[:, None] == gallery_view)


def order_bits(distance: Tensor) -> Tensor:
    """The bits of float32 distances, none nan, as int64 in [-2^31, 2^31) that order as the distances do."""
    bits = (distance.float() + 0.0).view(torch.int32).long()  # + 0.0 makes -0.0 a 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats order backwards in their bits


def positive_ranks(distance: Tensor, positive: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """Where each query's positives stand in its ranking; equal distances go by gallery index.

    Args:
        distance: (Q, G), finite.
        positive: (Q, G) bool, the matches; those that are ignored do not count.
        ignored: (Q, G) bool, taken out of the ranking.

    Returns:
        The 1-based ranks (Q, P), ascending, 0 where a query has fewer than P; and the counts of positives (Q,).
    """
    distance = distance.float()
    num_query, num_gallery = distance.shape
    positive = positive & ~ignored
    rows, columns = positive.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=num_query)
    most = max(int(counts.max()), 1)

    # Bucket 0 is nearer than every positive, the last one is farther or ignored. Rounding can move an image to a
    # neighbouring bucket, but never past one that is farther: each step is monotone in the distance.
    num_buckets = num_gallery // IMAGES_PER_BUCKET + 4
    nearest, farthest = _span(distance[rows, columns], rows, num_query)
    scale = (num_buckets - 3) / (farthest - nearest).clamp_min(SMALLEST_SPAN)
    bucket = distance.sub(nearest[:, None]).mul_(scale[:, None]).add_(1).clamp_(0, num_buckets - 1)
    bucket = bucket.masked_fill_(ignored, num_buckets - 1).long()
    sizes = bucket.new_zeros((num_query, num_buckets), dtype=torch.int32)
    sizes.scatter_add_(1, bucket, sizes.new_ones(1, 1).expand(num_query, num_gallery))
    mixed = torch.zeros_like(sizes, dtype=torch.bool)
    mixed[rows, bucket[rows, columns]] = True  # the buckets that hold a positive

    # Sort what lies in those, by query, distance and (the sort is stable) gallery index.
    rows, columns = mixed.gather(1, bucket).nonzero(as_tuple=True)  # (K,) each
    order = ((rows << 32) + order_bits(distance[rows, columns])).argsort(stable=True)
    rows, columns = rows[order], columns[order]

    # In the sort, an image stands behind those of smaller mixed buckets, of its query and of the queries before; in its
    # ranking, behind those of all smaller buckets of its query.
    shift = sizes.cumsum(1) - (sizes * mixed).flatten().cumsum(0).view_as(sizes)
    ranks = torch.arange(1, len(order) + 1, device=order.device) + shift[rows, bucket[rows, columns]]

    matches = positive[rows, columns]  # by query, then by rank: ready to be laid out
    rows, ranks = rows[matches], ranks[matches]
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    padded = ranks.new_zeros(num_query, most)
    padded[rows, slots] = ranks
    return padded, counts


def evaluate_ranking(
    query_feat: Tensor,
    query_pid: Tensor,
    query_view: Tensor,
    gallery_feat: Tensor,
    gallery_pid: Tensor,
    gallery_view: Tensor,
    *,
    chunk: int | None = None,
) -> RankingResult:
    """Rank the gallery for every query by squared Euclidean distance, leaving out what `ignored_pairs` names.

    Args:
        query_feat: (Q, E) features; `gallery_feat`: (G, E).
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_view: (Q,) camera or scene, as the protocol says; `gallery_view`: (G,).
        chunk: queries at a time; None chooses by CHUNK_ELEMENTS.

    Raises:
        UserError: no query has a valid match, or a feature is not finite.
    """
    if not (torch.isfinite(query_feat).all() and torch.isfinite(gallery_feat).all()):
        raise UserError(
            "The features to be ranked hold nan or inf. The weights are broken, or SOLVER.AMP overflows: try off."
        )
    labels = (query_pid, query_view, gallery_pid, gallery_view)
    return _rank(lambda rows: pairwise_distance(query_feat[rows], gallery_feat), *labels, chunk=chunk)


def rank_distances(
    distance: Tensor,
    query_pid: Tensor,
    query_view: Tensor,
    gallery_pid: Tensor,
    gallery_view: Tensor,
    *,
    chunk: int | None = None,
) -> RankingResult:
    """`evaluate_ranking` by a matrix of distances (Q, G) that is there already (re-ranking)."""
    return _rank(lambda rows: distance[rows], query_pid, query_view, gallery_pid, gallery_view, chunk=chunk)


def _rank(
    distance_of: Callable[[slice], Tensor],
    query_pid: Tensor,
    query_view: Tensor,
    gallery_pid: Tensor,
    gallery_view: Tensor,
    *,
    chunk: int | None,
) -> RankingResult:
    """Score every query; `distance_of` gives the rows (q, G) of the distances of some of them."""
    num_gallery = max(1, len(gallery_pid))
    chunk = chunk or max(1, CHUNK_ELEMENTS // num_gallery)
    step = max(1, RANK_ELEMENTS.get(gallery_pid.device.type, CHUNK_ELEMENTS) // num_gallery)
    parts = []
    for start in range(0, len(query_pid), chunk):
        chunk_distance = distance_of(slice(start, start + chunk))
        if not torch.isfinite(torch.stack(chunk_distance.aminmax())).all():
            raise UserError("The distances to be ranked hold nan or inf: the features are broken or too large.")
        for offset, distance in enumerate(chunk_distance.split(step)):
            rows = slice(start + offset * step, start + offset * step + len(distance))
            positive = query_pid[rows, None] == gallery_pid
            ignored = ignored_pairs(query_pid[rows], query_view[rows], gallery_pid, gallery_view)
            parts.append(_scores(*positive_ranks(distance, positive, ignored)))
    ap, first, inp = (torch.cat(values) for values in zip(*parts, strict=True))
    valid = first > 0
    if not valid.any():
        raise UserError(
            f"No query has a match in the gallery of another view. Query identities: {_some(query_pid)}; views: "
            f"{_some(query_view)}. Gallery identities: {_some(gallery_pid)}; views: {_some(gallery_view)}. An "
            "identity must be seen by at least two cameras (or scenes, as the protocol says)."
        )
    ranks = torch.arange(MAX_RANK + 1, device=first.device)
    cmc = (first[valid].unsqueeze(1) <= ranks).double().mean(dim=0)
    return RankingResult(
        mAP=ap[valid].mean().item(),
        cmc=cmc.cpu(),
        mINP=inp[valid].mean().item(),
        ap=ap.masked_fill(~valid, torch.nan).cpu(),
        num_queries=len(query_pid),
        num_valid_queries=int(valid.sum()),
    )


def _span(distance: Tensor, rows: Tensor, num_query: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest (Q,) of the positives' distances, whose queries are `rows`; 0 for a query without one."""
    zeros = distance.new_zeros(num_query)
    nearest = zeros.scatter_reduce(0, rows, distance, "amin", include_self=False)
    return nearest, zeros.scatter_reduce(0, rows, distance, "amax", include_self=False)


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
