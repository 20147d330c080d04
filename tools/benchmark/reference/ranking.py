"""Metric and re-ranking as in public code: the whole gallery is sorted, queries are looped over, matrices are dense.

Shapes: Q queries, G gallery, N = Q + G, E width.
"""

from __future__ import annotations

import numpy as np

MAX_RANK = 50


def squared_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Compute squared Euclidean distances (Q, G) of features (Q, E) and (G, E)."""
    squares = (query**2).sum(axis=1, keepdims=True) + (gallery**2).sum(axis=1)
    return squares - 2 * query @ gallery.T


def evaluate(
    distance: np.ndarray,
    query_pid: np.ndarray,
    query_group: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_group: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Compute mAP and CMC (MAX_RANK,) from distances (Q, G): sort the whole matrix, then go query by query."""
    order = np.argsort(distance, axis=1)
    matches = (gallery_pid[order] == query_pid[:, None]).astype(np.int32)
    curves, precisions = [], []
    for q in range(len(query_pid)):
        own = (gallery_pid[order[q]] == query_pid[q]) & (gallery_group[order[q]] == query_group[q])
        hits = matches[q][~own]
        if not hits.any():
            continue
        cumulated = hits.cumsum()
        curve = np.ones(MAX_RANK, hits.dtype)  # beyond the end of a small gallery all matches are found
        curve[: len(hits)] = np.minimum(cumulated, 1)[:MAX_RANK]
        curves.append(curve)
        precision = cumulated / np.arange(1, len(hits) + 1)
        precisions.append((precision * hits).sum() / hits.sum())
    return float(np.mean(precisions)), np.mean(curves, axis=0)


def rerank(
    query: np.ndarray, gallery: np.ndarray, *, k1: int = 50, k2: int = 15, lambda_value: float = 0.3
) -> np.ndarray:
    """Compute k-reciprocal re-ranked distances (Q, G) on dense N x N matrices (Zhong et al., CVPR 2017)."""
    features = np.concatenate([query, gallery])
    distance = squared_distances(features, features)
    original = distance / distance.max(axis=1, keepdims=True)
    ranking = np.argsort(original, axis=1)
    weights = np.zeros_like(original)
    for image in range(len(features)):
        members = _reciprocal(ranking, image, k1)
        expanded = members
        for candidate in members:
            others = _reciprocal(ranking, candidate, round(k1 / 2))
            if len(np.intersect1d(others, members)) > 2 / 3 * len(others):
                expanded = np.append(expanded, others)
        expanded = np.unique(expanded)
        weight = np.exp(-original[image, expanded])
        weights[image, expanded] = weight / weight.sum()
    if k2 > 1:
        weights = np.stack([weights[ranking[image, :k2]].mean(axis=0) for image in range(len(features))])
    owners = [np.flatnonzero(weights[:, image]) for image in range(len(features))]
    result = np.empty((len(query), len(features)), original.dtype)
    for q in range(len(query)):
        overlap = np.zeros(len(features), original.dtype)
        for image in np.flatnonzero(weights[q]):
            overlap[owners[image]] += np.minimum(weights[q, image], weights[owners[image], image])
        result[q] = 1 - overlap / (2 - overlap)
    result = (1 - lambda_value) * result + lambda_value * original[: len(query)]
    return result[:, len(query) :]


def _reciprocal(ranking: np.ndarray, image: int, k: int) -> np.ndarray:
    """Find the images among the k nearest that have `image` among their own k nearest."""
    nearest = ranking[image, : k + 1]
    return nearest[(ranking[nearest, : k + 1] == image).any(axis=1)]
