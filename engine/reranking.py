"""k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017).

The paper leaves some choices open. They are made as in the authors' published code, to which results are compared:

- Query and gallery are ranked as one set of N images. Each image is its own first neighbour, so N(p, k) holds k + 1.
- d is the squared Euclidean distance. It is normalised, d'(p, g) = d(p, g) / max_i d(p, i) over all N images i, both in
  the weights exp(-d') of eq. 7 and in the final sum of eq. 12 (the code divides by the maximum of each column and
  transposes, which gives the same).
- Eq. 5 adds the (k1 / 2)-reciprocal set of a neighbour q if *more than* two thirds of it are in R(p, k1); k1 / 2 is
  rounded half to even.
- The weights of an image sum to 1 before local query expansion (eq. 11: the mean over the k2 nearest, itself included).

Equal distances rank by index. Weights are float32 (float16 in the authors' code). An image gives weight to only a few
dozen others, so everything after the search for neighbours works on padded lists of these, never on an N x N matrix.

Shapes: Q queries, G gallery, N = Q + G, E width, R rows of a chunk, K neighbours, H neighbours for k1 / 2,
S weights of an image, padded with weight 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.metrics import count_within, pairwise_distance
from utils.errors import UserError

CHUNK_ELEMENTS = 2**24  # of a matrix with N columns, held at a time
OVERLAP_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}  # weights compared at a time: they fit a CPU's cache or fill a GPU


class Weights(NamedTuple):
    """The images to which each image gives weight; a list of fewer than S is padded with image 0 and weight 0."""

    images: Tensor
    """(N, S) int64."""
    values: Tensor
    """(N, S)."""


def rerank(
    query_feat: Tensor, gallery_feat: Tensor, *, k1: int = 50, k2: int = 15, lambda_value: float = 0.3
) -> Tensor:
    """Re-ranked distances (Q, G), on the features' device.

    Args:
        query_feat: (Q, E) features; `gallery_feat`: (G, E).
        k1: number of neighbours; those that are mutual count as similar.
        k2: number of images over whose weights local query expansion averages; 1 turns it off.
        lambda_value: weight of the original distance in the result, 0 to 1.

    Raises:
        UserError: a parameter is out of range, or a feature is not finite.
    """
    for name, value, allowed, legal in (
        ("k1", k1, "at least 1", k1 >= 1),
        ("k2", k2, "at least 1", k2 >= 1),
        ("lambda_value", lambda_value, "in [0, 1]", 0 <= lambda_value <= 1),
    ):
        if not legal:
            raise UserError(f"{name} of the re-ranking is {value}; it must be {allowed}.")
    features = torch.cat([query_feat, gallery_feat]).float()
    if not torch.isfinite(features).all():
        raise UserError(
            "The features to be re-ranked hold nan or inf. The weights are broken, or SOLVER.AMP overflows: try off."
        )
    num_images, num_query = len(features), len(query_feat)
    num_half = min(round(k1 / 2) + 1, num_images)
    chunk = max(1, CHUNK_ELEMENTS // max(num_images, min(k1 + 1, num_images) * num_half))
    starts = range(0, num_images, chunk)

    @lru_cache(maxsize=1)  # a single chunk is computed once; several are computed again each time they are needed
    def chunk_distance(start: int) -> Tensor:
        return pairwise_distance(features[start : start + chunk], features)

    num_nearest = min(max(k1 + 1, k2), num_images)
    nearest = torch.cat([_nearest(chunk_distance(start), num_nearest) for start in starts])
    weights = _encode(chunk_distance, starts, nearest[:, : k1 + 1], nearest[:, :num_half])
    if k2 > 1:
        weights = _expand(weights, nearest[:, :k2], chunk)

    overlap = _overlap(weights, num_query)
    # Eq. 10: the weights of an image sum to 1, so the sum over the maxima is 2 - overlap. Eq. 12 then mixes.
    result = overlap.div_(overlap - 2).add_(1).mul_(1 - lambda_value)
    for start in range(0, num_query, chunk):
        distance = chunk_distance(start)[: num_query - start]
        result[start : start + chunk] += lambda_value / _farthest(distance) * distance[:, num_query:]
    return result


def _nearest(distance: Tensor, k: int) -> Tensor:
    """Return the k nearest images (R, k) by distance (R, N), nearest first."""
    # Non-negative floats sort in the order of their bits, read as integers. `pairwise_distance` never gives -0.0.
    keys = distance.view(torch.int32).long().mul_(2**32)
    keys += torch.arange(distance.shape[1], device=distance.device)
    return keys.topk(k, dim=1, largest=False).indices


def _farthest(distance: Tensor) -> Tensor:
    """Return the largest distance (R, 1) of each row, at least the smallest positive float."""
    return distance.amax(dim=1, keepdim=True).clamp_min(torch.finfo(distance.dtype).tiny)


def _mutual(neighbours: Tensor) -> Tensor:
    """(N, K) bool: whether each of the neighbours (N, K) has the image among its own neighbours (eq. 3)."""
    num_images = len(neighbours)
    images = torch.arange(num_images, device=neighbours.device)[:, None]
    edges = (images * num_images + neighbours).flatten().sort().values
    reverse = neighbours * num_images + images
    found = torch.searchsorted(edges, reverse).clamp_max_(len(edges) - 1)
    return edges[found] == reverse


def _encode(
    chunk_distance: Callable[[int], Tensor], starts: range, neighbours: Tensor, half_neighbours: Tensor
) -> Weights:
    """Weight every image's expanded reciprocal set R* by exp(-d') (eq. 5 and 7), scaled to a sum of 1.

    Args:
        chunk_distance: gives the distances (R, N) of the chunk that starts at a row.
        starts: first rows of the chunks.
        neighbours: (N, K), N(p, k1); `half_neighbours`: (N, H), N(p, k1 / 2).
    """
    num_images = len(neighbours)
    mutual, half_mutual = _mutual(neighbours), _mutual(half_neighbours)
    half_sizes = half_mutual.sum(dim=1)
    parts = []
    for start in starts:
        rows = slice(start, start + starts.step)
        distance = chunk_distance(start)
        # R(p, k1) as a mask, with an extra column that takes the neighbours that are not in it.
        included = distance.new_zeros((len(distance), num_images + 1), dtype=torch.bool)
        included.scatter_(1, neighbours[rows].where(mutual[rows], num_images), True)
        members = half_neighbours[neighbours[rows]]  # (R, K, H): where `valid`, R(q, k1 / 2) of each neighbour q
        valid = half_mutual[neighbours[rows]]
        shared = (included.gather(1, members.flatten(1)).view_as(members) & valid).sum(dim=2)
        accepted = mutual[rows] & (3 * shared > 2 * half_sizes[neighbours[rows]])
        added = members.where(valid & accepted[:, :, None], num_images)
        included = included.scatter_(1, added.flatten(1), True)[:, :num_images]

        owner, image = included.nonzero(as_tuple=True)
        value = (-distance[owner, image] / _farthest(distance)[owner, 0]).exp()
        weights = _padded(owner, image, value, len(distance))
        parts.append(Weights(weights.images, weights.values / weights.values.sum(dim=1, keepdim=True)))
    return _stacked(parts)


def _expand(weights: Weights, nearest: Tensor, chunk: int) -> Weights:
    """Local query expansion: the mean of the weights of the `nearest` (N, k2) of every image (eq. 11)."""
    num_images, k2 = nearest.shape
    parts = []
    for rows in nearest.split(chunk):
        mean = weights.values.new_zeros(len(rows), num_images)
        for i in range(k2):
            mean.scatter_add_(1, weights.images[rows[:, i]], weights.values[rows[:, i]])
        owner, image = mean.nonzero(as_tuple=True)
        parts.append(_padded(owner, image, mean[owner, image] / k2, len(rows)))
    return _stacked(parts)


def _overlap(weights: Weights, num_query: int) -> Tensor:
    """(Q, G): the sum over all images of the smaller of the two weights that query and gallery image give to it."""
    images, values = (part[:num_query] for part in weights)  # (Q, S)
    gallery = Weights(*(part[num_query:] for part in weights))
    num_images, num_gallery = len(weights.images), len(gallery.images)
    limit = OVERLAP_ELEMENTS.get(values.device.type, CHUNK_ELEMENTS)
    overlap = values.new_empty(num_query, num_gallery)
    block = max(1, CHUNK_ELEMENTS // num_images)
    for start in range(0, num_gallery, block):
        columns = slice(start, min(start + block, num_gallery))
        dense = values.new_zeros(columns.stop - start, num_images)
        dense.scatter_add_(1, gallery.images[columns], gallery.values[columns])
        by_image = dense.T.contiguous()  # (N, block)
        step = max(1, limit // (images.shape[1] * by_image.shape[1]))
        for row in range(0, num_query, step):
            rows = slice(row, row + step)
            given = by_image.index_select(0, images[rows].flatten()).view(-1, images.shape[1], by_image.shape[1])
            overlap[rows, columns] = torch.minimum(given, values[rows, :, None]).sum(dim=1)
    return overlap


def _padded(owner: Tensor, image: Tensor, value: Tensor, num_rows: int) -> Weights:
    """Return the weights of `num_rows` images from a flat list that is sorted by `owner`."""
    counts = torch.bincount(owner, minlength=num_rows)
    slots = count_within(owner, counts)
    size = (num_rows, int(counts.max()))
    images, values = image.new_zeros(size), value.new_zeros(size)
    images[owner, slots] = image
    values[owner, slots] = value
    return Weights(images, values)


def _stacked(parts: Iterable[Weights]) -> Weights:
    """Concatenate chunks of rows, padded to the same width."""
    parts = list(parts)
    width = max(part.images.shape[1] for part in parts)
    padded = ([F.pad(x, (0, width - x.shape[1])) for x in column] for column in zip(*parts, strict=True))
    return Weights(*(torch.cat(column) for column in padded))
