"""Distances, mAP, CMC and mINP, from the rank of each positive; no model, no files.

These figures need only where in its ranking each positive stands, not which image stands where. So the distances of a
query are sorted without the images that they belong to, which is several times as fast, and the positives looked up
among them (`positive_ranks`).

Shapes: Q queries, G gallery, E width, P the largest number of positives of a query.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

MAX_RANK = 50
CHUNK_ELEMENTS = 2**25
"""Elements of the Q x G matrix of distances that are made at a time."""
SORT_ELEMENTS = 2**18
"""Of those, sorted at a time by a thread of the CPU: what stays in its cache."""
Pairs = tuple[Tensor, Tensor]
"""Indices (K,) of queries and (K,) of gallery images, int64: some pairs out of Q x G."""


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


def ignored_pairs(query_pid: Tensor, query_group: Tensor, gallery_pid: Tensor, gallery_group: Tensor) -> Tensor:
    """(Q, G) bool: what the protocol takes out of a query's ranking, its own identity seen in its own view.

    Args:
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_group: (Q,) camera or scene, as the protocol says; `gallery_group`: (G,).
    """
    return (query_pid[:, None] == gallery_pid) & (query_group[:, None] == gallery_group)


def same_identity_pairs(query_pid: Tensor, gallery_pid: Tensor) -> Pairs:
    """Where query (Q,) and gallery (G,) identities are equal, by query and then by gallery index.

    Few pairs are, so they are looked up in the sorted identities instead of being compared one by one.
    """
    gallery_pid, order = gallery_pid.sort(stable=True)
    query, place = _look_up(query_pid, gallery_pid)
    return query, order[place]


def _look_up(wanted: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where some values stand in ascending `keys`: for every time that one does, its index and that of the key."""
    first = torch.searchsorted(keys, wanted)
    counts = torch.searchsorted(keys, wanted, right=True) - first
    rows = torch.arange(len(wanted), device=wanted.device).repeat_interleave(counts)
    return rows, first[rows] + count_within(rows, counts)


def positive_ranks(distance: Tensor, positive: Pairs, ignored: Pairs) -> tuple[Tensor, Tensor]:
    """Where each query's positives stand in its ranking; equal distances go by gallery index.

    Args:
        distance: (Q, G) float32, finite.
        positive: the matches, by query and then by gallery index.
        ignored: what is taken out of the ranking, in the same order; no match is.

    Returns:
        The 1-based ranks (Q, P), ascending, 0 where a query has fewer than P; and the counts of positives (Q,).
    """
    rows, columns = positive
    num_query = len(distance)
    counts = torch.bincount(rows, minlength=num_query)
    slots = count_within(rows, counts)
    values = distance.new_full((num_query, max(int(counts.max()), 1)), torch.inf)
    images = columns.new_zeros(values.shape)
    values[rows, slots], images[rows, slots] = distance[rows, columns], columns
    values, order = values.sort(dim=1, stable=True)  # by distance, then by gallery index
    images = images.gather(1, order)

    before, equal = _count_closer(distance, values, ignored)
    exists = values < torch.inf
    rows, slots = (exists & (equal > 1)).nonzero(as_tuple=True)
    index = torch.arange(distance.shape[1], device=distance.device)
    for r, s in zip(rows.split(num_query), slots.split(num_query), strict=True):  # no more memory than `distance`
        earlier = (distance[r] == values[r, s, None]) & (index < images[r, s, None])
        entry, place = _look_up(r, ignored[0])
        earlier[entry, ignored[1][place]] = False
        before[r, s] += earlier.sum(dim=1)
    return (before + 1) * exists, counts


def _count_closer(distance: Tensor, values: Tensor, ignored: Pairs) -> tuple[Tensor, Tensor]:
    """How many distances (Q, G), but for the ignored, are below each value (Q, P) of their row, and how many equal it.

    On the CPU numpy sorts, whose vectorised sort of values alone is some twenty times as fast as torch's. It has one
    thread, so that the rows are shared out, a few at a time, which stay in the cache until they have been searched.
    """
    if distance.device.type != "cpu":
        ranking = distance.index_put(ignored, distance.new_tensor(torch.inf)).sort(dim=1).values
        below, not_above = (torch.searchsorted(ranking, values, side=side) for side in ("left", "right"))
        return below, not_above - below
    below, not_above = torch.empty((2, *values.shape), dtype=torch.int64)
    step = max(1, SORT_ELEMENTS // distance.shape[1])
    starts = range(0, len(distance), step)
    bounds = torch.searchsorted(ignored[0], torch.tensor([*starts, len(distance)])).tolist()
    rows, columns, source, wanted, left, right = (
        of_all.numpy() for of_all in (*ignored, distance, values, below, not_above)
    )

    def count(start: int, first: int, last: int) -> None:
        ranking = source[start : start + step].copy()
        ranking[rows[first:last] - start, columns[first:last]] = np.inf
        ranking.sort(axis=1)
        for row, ranked in enumerate(ranking, start):
            left[row] = ranked.searchsorted(wanted[row])
            right[row] = ranked.searchsorted(wanted[row], "right")

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy releases the interpreter lock while it sorts
        list(pool.map(count, starts, bounds[:-1], bounds[1:]))
    return below, not_above - below


def count_within(rows: Tensor, counts: Tensor) -> Tensor:
    """0, 1, 2, ... anew in every row, of a list of pairs by row whose rows have `counts` of them."""
    return torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]


def evaluate_ranking(
    query_feat: Tensor,
    query_pid: Tensor,
    query_group: Tensor,
    gallery_feat: Tensor,
    gallery_pid: Tensor,
    gallery_group: Tensor,
    *,
    chunk: int | None = None,
) -> RankingResult:
    """Rank the gallery for every query by squared Euclidean distance, leaving out what `ignored_pairs` names.

    Args:
        query_feat: (Q, E) features; `gallery_feat`: (G, E).
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_group: (Q,) camera or scene, as the protocol says; `gallery_group`: (G,).
        chunk: queries at a time; None chooses by CHUNK_ELEMENTS.

    Raises:
        UserError: no query has a valid match, or a feature is not finite.
    """
    if not (torch.isfinite(query_feat).all() and torch.isfinite(gallery_feat).all()):
        raise UserError(
            "The features to be ranked hold nan or inf. The weights are broken, or SOLVER.AMP overflows: try off."
        )
    labels = (query_pid, query_group, gallery_pid, gallery_group)
    return _rank(lambda rows: pairwise_distance(query_feat[rows], gallery_feat), *labels, chunk=chunk)


def rank_distances(
    distance: Tensor,
    query_pid: Tensor,
    query_group: Tensor,
    gallery_pid: Tensor,
    gallery_group: Tensor,
    *,
    chunk: int | None = None,
) -> RankingResult:
    """`evaluate_ranking` by a matrix of distances (Q, G) that is there already (re-ranking)."""
    return _rank(lambda rows: distance[rows], query_pid, query_group, gallery_pid, gallery_group, chunk=chunk)


def _rank(
    distance_of: Callable[[slice], Tensor],
    query_pid: Tensor,
    query_group: Tensor,
    gallery_pid: Tensor,
    gallery_group: Tensor,
    *,
    chunk: int | None,
) -> RankingResult:
    """Score every query; `distance_of` makes the rows (q, G) of the distances of some of them."""
    if not (len(query_pid) and len(gallery_pid)):
        raise UserError(f"There are {len(query_pid)} queries and {len(gallery_pid)} gallery images; each needs one.")
    chunk = chunk or max(1, CHUNK_ELEMENTS // len(gallery_pid))
    query, image = same_identity_pairs(query_pid, gallery_pid)
    own_view = query_group[query] == gallery_group[image]
    positive, ignored = ((query[these], image[these]) for these in (~own_view, own_view))
    parts = []
    for start in range(0, len(query_pid), chunk):
        distance = distance_of(slice(start, start + chunk)).float()
        if not torch.isfinite(torch.stack(distance.aminmax())).all():
            raise UserError("The distances to be ranked hold nan or inf: the features are broken or too large.")
        rows = slice(start, start + len(distance))
        parts.append(_scores(*positive_ranks(distance, _of_rows(positive, rows), _of_rows(ignored, rows))))
    ap, first, inp = (torch.cat(values) for values in zip(*parts, strict=True))
    valid = first > 0
    if not valid.any():
        raise UserError(
            f"No query has a match in the gallery of another view. Query identities: {_some(query_pid)}; views: "
            f"{_some(query_group)}. Gallery identities: {_some(gallery_pid)}; views: {_some(gallery_group)}. An "
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


def _of_rows(pairs: Pairs, rows: slice) -> Pairs:
    """The pairs of some queries, which are counted from 0 again."""
    bounds = torch.tensor([rows.start, rows.stop], device=pairs[0].device)
    these = slice(*torch.searchsorted(pairs[0], bounds).tolist())
    return pairs[0][these] - rows.start, pairs[1][these]


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
