"""Metric and re-ranking at the sizes of RGBNT201, RGBNT100 and Market-1501, on random features."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.metrics import evaluate_ranking, pairwise_distance, rank_distances
from engine.reranking import rerank
from tools.benchmark.build import Bench
from tools.benchmark.reference import ranking
from tools.benchmark.timing import Row, compare, timing_row

WIDTH = 1536
IDENTITIES = {836: (30, 2), 1715: (50, 8), 3368: (750, 6)}
"""Identities and cameras, by the number of queries."""
NOISE = 2.0
"""Standard deviation around an identity's mean, whose own is 1: enough that the ranks are mixed."""


def make_features(num_query: int, num_gallery: int, *, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, ...]:
    """Draw features of unit length, identities and cameras of the queries, and the same of the gallery."""
    identities, cameras = IDENTITIES.get(num_query, (10, 3))
    generator = torch.Generator().manual_seed(seed)
    total = num_query + num_gallery
    pid = torch.randint(identities, (total,), generator=generator)
    camera = torch.randint(cameras, (total,), generator=generator)
    centres = torch.randn(identities, width, generator=generator)
    features = F.normalize(centres[pid] + NOISE * torch.randn(total, width, generator=generator))
    split = [tensor.split([num_query, num_gallery]) for tensor in (features, pid, camera)]
    return *(query for query, _ in split), *(gallery for _, gallery in split)


def measure_metric(bench: Bench) -> Iterator[Row]:
    """Compare mAP and CMC from distances, and from features; the reference always runs on the CPU."""
    for num_query, num_gallery in bench.sizes.rankings:
        data = make_features(num_query, num_gallery)
        on_device = [tensor.to(bench.device) for tensor in data]
        query, gallery = data[0].numpy(), data[3].numpy()
        labels = [data[i].numpy() for i in (1, 2, 4, 5)]
        distance = pairwise_distance(on_device[0], on_device[3])
        ways = {
            "distances": partial(rank_distances, distance, *(on_device[i] for i in (1, 2, 4, 5))),
            "features": partial(evaluate_ranking, *on_device),
            "reference, distances": partial(ranking.evaluate, ranking.squared_distances(query, gallery), *labels),
            "reference, features": partial(_evaluate_by_reference, query, gallery, labels),
        }
        times = compare(ways, bench.device, repeats=bench.sizes.repeats)
        for way in ("distances", "features"):
            name = f"mAP and CMC from {way}, {num_query} x {num_gallery}"
            yield timing_row(name, times[way], times[f"reference, {way}"])


def _evaluate_by_reference(query: np.ndarray, gallery: np.ndarray, labels: list[np.ndarray]) -> None:
    ranking.evaluate(ranking.squared_distances(query, gallery), *labels)


def measure_reranking(bench: Bench) -> Iterator[Row]:
    """Compare k-reciprocal re-ranking at the smallest size; the reference would take too long for the others."""
    for i, (num_query, num_gallery) in enumerate(bench.sizes.rankings):
        query, _, _, gallery, _, _ = make_features(num_query, num_gallery)
        name = f"k-reciprocal, {num_query} x {num_gallery}, {WIDTH}-d"
        ways = {"ours": partial(rerank, query.to(bench.device), gallery.to(bench.device))}
        if i == 0:
            ways["reference"] = partial(ranking.rerank, query.numpy(), gallery.numpy())
            times = compare(ways, bench.device, repeats=bench.sizes.repeats)
            yield timing_row(name, times["ours"], times["reference"])
        else:
            times = compare(ways, bench.device, repeats=1, warmup=0)
            yield Row(name=f"{name}, one run", unit="ms", ours=1e3 * times["ours"].median)
