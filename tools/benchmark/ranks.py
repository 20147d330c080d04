"""Metric and re-ranking at the sizes of RGBNT201, RGBNT100 and Market-1501, on made features."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.metrics import evaluate_ranking, pairwise_distance, rank_distances
from engine.reranking import rerank
from tools.benchmark.build import Sizes
from tools.benchmark.reference import ranking
from tools.benchmark.timing import Row, compare, time_row

WIDTH = 1536
IDENTITIES = {836: (30, 2), 1715: (50, 8), 3368: (750, 6)}
"""Identities and cameras, by the number of queries."""
NOISE = 2.0
"""Of a feature's values, beside 1 of its identity's: enough that ranks are mixed."""


def make_features(num_query: int, num_gallery: int, *, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, ...]:
    """Features of unit length, identities and cameras of the queries, and the same of the gallery."""
    identities, cameras = IDENTITIES.get(num_query, (10, 3))
    generator = torch.Generator().manual_seed(seed)
    total = num_query + num_gallery
    pid = torch.randint(identities, (total,), generator=generator)
    camera = torch.randint(cameras, (total,), generator=generator)
    centres = torch.randn(identities, width, generator=generator)
    features = F.normalize(centres[pid] + NOISE * torch.randn(total, width, generator=generator))
    split = [tensor.split([num_query, num_gallery]) for tensor in (features, pid, camera)]
    return *(query for query, _ in split), *(gallery for _, gallery in split)


def measure_metric(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """mAP and CMC from a matrix of distances, and from features; the peers' always on the CPU."""
    for num_query, num_gallery in sizes.ranking:
        data = make_features(num_query, num_gallery)
        on_device = [tensor.to(device) for tensor in data]
        query, pid, view, gallery, gallery_pid, gallery_group = (tensor.numpy() for tensor in data)
        labels, own_labels = (pid, view, gallery_pid, gallery_group), (*on_device[1:3], *on_device[4:])
        distance = ranking.squared_distances(query, gallery)
        ways = {
            "metric": partial(rank_distances, pairwise_distance(on_device[0], on_device[3]), *own_labels),
            "all": partial(evaluate_ranking, *on_device),
            "peers": partial(ranking.evaluate, distance, *labels),
            "peers, all": partial(_peers_evaluate, query, gallery, labels),
        }
        times = compare(ways, device, repeats=sizes.repeats)
        title = f"{num_query} x {num_gallery}"
        yield time_row("metric", f"mAP and CMC of distances, {title}", times["metric"], times["peers"])
        yield time_row("metric", f"the same of features, {title}", times["all"], times["peers, all"])


def _peers_evaluate(query: np.ndarray, gallery: np.ndarray, labels: tuple[np.ndarray, ...]) -> None:
    ranking.evaluate(ranking.squared_distances(query, gallery), *labels)


def measure_reranking(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """k-reciprocal re-ranking; the peers' at the smallest size only, where it fits memory and patience."""
    for i, (num_query, num_gallery) in enumerate(sizes.ranking):
        data = make_features(num_query, num_gallery)
        ways = {"ours": partial(rerank, data[0].to(device), data[3].to(device))}
        if i == 0:
            ways["peers"] = partial(ranking.rerank, data[0].numpy(), data[3].numpy())
        repeats = sizes.repeats if i == 0 else 1
        times = compare(ways, device, repeats=repeats, warmup=1 if i == 0 else 0)
        name = f"k-reciprocal, {num_query} x {num_gallery}, {WIDTH}-d"
        if i == 0:
            yield time_row("rerank", name, times["ours"], times["peers"])
        else:
            yield Row(subject="rerank", name=f"{name}, one run", unit="ms", ours=1e3 * times["ours"].median)
