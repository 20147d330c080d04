"""Distances, mAP, CMC and mINP, from the rank of each positive; no model, no files.

These metrics need only the rank at which each positive stands, not which image stands at every rank. So the distances
of a query are sorted without the images that they belong to, which is several times as fast, and the distance of each
positive is looked up among them (`positive_ranks`).

Shapes: Q queries, G gallery, E width, P the largest number of positives of a query, K some pairs of the Q x G.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

MAX_RANK = 50
CHUNK_ELEMENTS = 2**25  # of the Q x G matrix of distances, computed at a time
SORT_ELEMENTS = 2**18  # of those, sorted at a time by a CPU thread: they stay in its cache until they are searched


class Pairs(NamedTuple):
    """Pairs of a query and a gallery image, sorted by query and then by image."""

    query: Tensor
    """(K,) int64."""
    image: Tensor
    """(K,) int64."""

    def within(self, queries: slice) -> Pairs:
        """Return the pairs of some queries, which are then counted from 0."""
        bounds = torch.tensor([queries.start, queries.stop], device=self.query.device)
        first, last = torch.searchsorted(self.query, bounds).tolist()
        return Pairs(self.query[first:last] - queries.start, self.image[first:last])


@dataclass(frozen=True)
class RankingResult:
    """Metrics as fractions of 1, over the queries that have a valid match."""

    mAP: float  # noqa: N815 - the established name
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
    """(Q, G) bool: the images that the protocol removes from a query's ranking, of its identity in its own group.

    Args:
        query_pid: (Q,) identities; `gallery_pid`: (G,).
        query_group: (Q,) camera or scene, as the protocol says; `gallery_group`: (G,).
    """
    return (query_pid[:, None] == gallery_pid) & (query_group[:, None] == gallery_group)


def same_identity_pairs(query_pid: Tensor, gallery_pid: Tensor) -> Pairs:
    """Return the pairs whose query (Q,) and gallery (G,) identities are equal.

    There are few of them, so they are looked up in the sorted identities instead of comparing all pairs.
    """
    gallery_pid, order = gallery_pid.sort(stable=True)
    query, positions = _find_all(query_pid, gallery_pid)
    return Pairs(query, order[positions])


def _find_all(wanted: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return all (i, j) with wanted[i] == keys[j], sorted; `keys` are ascending and may repeat."""
    first = torch.searchsorted(keys, wanted)
    counts = torch.searchsorted(keys, wanted, right=True) - first
    i = torch.arange(len(wanted), device=wanted.device).repeat_interleave(counts)
    return i, first[i] + count_within(i, counts)


def count_within(rows: Tensor, counts: Tensor) -> Tensor:
    """Number the entries of each row 0, 1, 2, ...; `rows` (K,) are ascending, and row r occurs counts[r] times."""
    return torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]


def positive_ranks(distance: Tensor, positive: Pairs, ignored: Pairs) -> tuple[Tensor, Tensor]:
    """Return the rank of each query's positives; equal distances rank by gallery index.

    Args:
        distance: (Q, G) float32, finite.
        positive: the matches.
        ignored: pairs removed from the ranking; a match is not among them.

    Returns:
        The 1-based ranks (Q, P), ascending, 0 where a query has fewer than P; and the counts of positives (Q,).
    """
    values, images, counts = _sort_positives(distance, positive)
    exists = values < torch.inf
    closer, equal = _count_closer(distance, values, ignored)
    tied = exists & (equal > 1)  # one of the equal distances is the positive's own
    closer[tied] += _count_earlier_ties(distance, values, images, ignored, tied)
    return (closer + 1) * exists, counts


def _sort_positives(distance: Tensor, positive: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (Q, P) of the positives, ascending and then inf; their images (Q, P); the counts of positives (Q,)."""
    counts = torch.bincount(positive.query, minlength=len(distance))
    slots = count_within(positive.query, counts)
    values = distance.new_full((len(distance), max(int(counts.max()), 1)), torch.inf)
    images = positive.image.new_zeros(values.shape)
    values[positive.query, slots], images[positive.query, slots] = distance[positive], positive.image
    values, order = values.sort(dim=1, stable=True)  # by distance, then by gallery index
    return values, images.gather(1, order), counts


def _count_closer(distance: Tensor, values: Tensor, ignored: Pairs) -> tuple[Tensor, Tensor]:
    """Count the distances (Q, G), without the ignored, that are below and equal to each value (Q, P) of their row.

    On the CPU numpy sorts, because its vectorised sort of values alone is some twenty times as fast as torch's. It uses
    one thread, so the rows are shared out to threads, a few rows at a time.
    """
    if distance.device.type != "cpu":
        ranking = distance.index_put(ignored, distance.new_tensor(torch.inf)).sort(dim=1).values
        below, not_above = (torch.searchsorted(ranking, values, side=side) for side in ("left", "right"))
        return below, not_above - below

    below, not_above = np.empty(values.shape, np.int64), np.empty(values.shape, np.int64)
    rows_at_a_time = max(1, SORT_ELEMENTS // distance.shape[1])
    starts = range(0, len(distance), rows_at_a_time)
    first_ignored = torch.searchsorted(ignored.query, torch.tensor([*starts, len(distance)])).tolist()
    all_distances, all_values, ignored_query, ignored_image = (x.numpy() for x in (distance, values, *ignored))

    def search(start: int, first: int, last: int) -> None:
        """Fill the rows from `start`, whose ignored pairs are those from `first` to `last`."""
        ranking = all_distances[start : start + rows_at_a_time].copy()
        ranking[ignored_query[first:last] - start, ignored_image[first:last]] = np.inf
        ranking.sort(axis=1)
        for row, ranked in enumerate(ranking, start):
            below[row] = ranked.searchsorted(all_values[row], "left")
            not_above[row] = ranked.searchsorted(all_values[row], "right")

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy releases the interpreter lock while it sorts
        list(pool.map(search, starts, first_ignored[:-1], first_ignored[1:]))
    return torch.from_numpy(below), torch.from_numpy(not_above - below)


def _count_earlier_ties(distance: Tensor, values: Tensor, images: Tensor, ignored: Pairs, tied: Tensor) -> Tensor:
    """For each of the `tied` (Q, P) positives, how many images of equal distance have a smaller gallery index.

    Args:
        distance: (Q, G).
        values: (Q, P) distances of the positives; `images`: (Q, P) their gallery indices.
        ignored: pairs that do not count.
    """
    queries, slots = tied.nonzero(as_tuple=True)
    index = torch.arange(distance.shape[1], device=distance.device)
    counts = [queries[:0]]
    at_a_time = len(distance)  # takes no more memory than `distance`
    for query, slot in zip(queries.split(at_a_time), slots.split(at_a_time), strict=True):
        earlier = (distance[query] == values[query, slot, None]) & (index < images[query, slot, None])
        row, pair = _find_all(query, ignored.query)
        earlier[row, ignored.image[pair]] = False
        counts.append(earlier.sum(dim=1))
    return torch.cat(counts)


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
    """Rank the gallery for every query by squared Euclidean distance, without the pairs of `ignored_pairs`.

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
    """`evaluate_ranking` by distances (Q, G) that are computed already, such as those of re-ranking."""
    return _rank(lambda rows: distance[rows], query_pid, query_group, gallery_pid, gallery_group, chunk=chunk)


def _rank(
    compute_distance: Callable[[slice], Tensor],
    query_pid: Tensor,
    query_group: Tensor,
    gallery_pid: Tensor,
    gallery_group: Tensor,
    *,
    chunk: int | None,
) -> RankingResult:
    """Score every query; `compute_distance` gives the distances (q, G) of a slice of the queries."""
    num_queries, num_gallery = len(query_pid), len(gallery_pid)
    if not (num_queries and num_gallery):
        raise UserError(f"There are {num_queries} queries and {num_gallery} gallery images; each needs one.")
    chunk = chunk or max(1, CHUNK_ELEMENTS // num_gallery)
    query, image = same_identity_pairs(query_pid, gallery_pid)
    own_group = query_group[query] == gallery_group[image]
    positive, ignored = Pairs(query[~own_group], image[~own_group]), Pairs(query[own_group], image[own_group])
    parts = []
    for start in range(0, num_queries, chunk):
        distance = compute_distance(slice(start, start + chunk)).float()
        if not torch.isfinite(torch.stack(distance.aminmax())).all():
            raise UserError("The distances to be ranked hold nan or inf: the features are broken or too large.")
        queries = slice(start, start + len(distance))
        parts.append(_score(*positive_ranks(distance, positive.within(queries), ignored.within(queries))))
    ap, first, inp = (torch.cat(values) for values in zip(*parts, strict=True))
    valid = first > 0
    if not valid.any():
        raise UserError(
            f"No query has a match in the gallery of another group. Query identities: {_some(query_pid)}; groups: "
            f"{_some(query_group)}. Gallery identities: {_some(gallery_pid)}; groups: {_some(gallery_group)}. An "
            "identity must be seen by at least two cameras (or in two scenes, as the protocol says)."
        )
    ranks = torch.arange(MAX_RANK + 1, device=first.device)
    cmc = (first[valid].unsqueeze(1) <= ranks).double().mean(dim=0)
    return RankingResult(
        mAP=ap[valid].mean().item(),
        cmc=cmc.cpu(),
        mINP=inp[valid].mean().item(),
        ap=ap.masked_fill(~valid, torch.nan).cpu(),
        num_queries=num_queries,
        num_valid_queries=int(valid.sum()),
    )


def _score(ranks: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision, rank of the first positive (0 without one) and INP, each (Q,), from `positive_ranks`."""
    order = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    exists = ranks > 0
    precision = (order * exists).double() / ranks.clamp_min(1)  # at the rank of each positive
    return precision.sum(dim=1) / counts.clamp_min(1), ranks[:, 0], counts.double() / ranks.amax(dim=1).clamp_min(1)


def _some(values: Tensor) -> str:
    """Return the first distinct values, for a message."""
    distinct = values.unique().tolist()
    return ", ".join(map(str, distinct[:8])) + (", ..." if len(distinct) > 8 else "")
