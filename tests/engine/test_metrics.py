"""AP, CMC and mINP on cases worked by hand, and against the usual loop over queries."""

import numpy as np
import pytest
import torch

from engine import metrics
from engine.metrics import evaluate_ranking, pairwise_distance, positive_ranks, sort_keys
from utils.errors import UserError


def rank(distance, query_pid, query_view, gallery_pid, gallery_view):
    """Rank by a distance matrix alone."""
    distance = torch.tensor(distance)
    features = [torch.zeros(size, 1) for size in distance.shape]
    labels = [torch.tensor(values) for values in (query_pid, query_view, gallery_pid, gallery_view)]
    return evaluate_ranking(features[0], *labels[:2], features[1], *labels[2:], distance=distance)


def test_ap_cmc_and_minp_by_hand():
    """Query 0 (id 1, view 0): ranking 2x 1 2 1 -> positives at 2 and 4, after the own view is dropped.

    gallery:  a: id 1 view 0 (ignored), b: id 2, c: id 1 view 1, d: id 2, e: id 1 view 1
    query 0 sees b (.1), c (.2), d (.3), e (.4): AP = (1/2 + 2/4) / 2 = 0.5, first at 2, INP = 2/4.
    query 1 (id 2, view 0) sees d (.1), e (.2), c (.3), b (.4), a (.5): AP = (1/1 + 2/4) / 2 = 0.75, first 1, INP = 2/4.
    """
    result = rank(
        [[0.0, 0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.1, 0.2]],
        [1, 2], [0, 0], [1, 2, 1, 2, 1], [0, 1, 1, 1, 1],
    )  # fmt: skip
    assert result.ap.tolist() == [0.5, 0.75]
    assert result.mAP == 0.625
    assert result.cmc[[0, 1, 2, 3, 50]].tolist() == [0, 0.5, 1, 1, 1]
    assert result.mINP == 0.5
    assert (result.num_queries, result.num_valid_queries) == (2, 2)


def test_the_protocol_is_which_view_is_given():
    """One person, same camera and another scene: a match by scene, none by camera."""
    distance, pid = [[0.1, 0.2, 0.3]], [1, 2, 1]
    by_scene = rank(distance, [1], [7], pid, [8, 8, 7])  # the third is of the query's scene: ignored
    assert by_scene.mAP == 1
    with pytest.raises(UserError, match=r"No query has a match.*Query identities: 1; views: 3"):
        rank(distance, [1], [3], pid, [3, 3, 3])


def test_a_query_without_a_match_is_counted_and_not_scored():
    result = rank([[0.1, 0.2], [0.1, 0.2]], [1, 9], [0, 0], [1, 2], [1, 1])
    assert (result.mAP, result.num_queries, result.num_valid_queries) == (1.0, 2, 1)
    assert torch.isnan(result.ap[1])


def test_ties_go_by_gallery_index():
    assert rank([[0.5, 0.5, 0.5]], [1], [0], [2, 1, 2], [1, 1, 1]).mAP == 0.5
    assert rank([[0.5, 0.5, 0.5]], [1], [0], [1, 2, 2], [1, 1, 1]).mAP == 1.0


def test_keys_order_as_distances_do():
    values = torch.tensor([[-2.5, -0.0, 0.0, 1e-30, 3.0, -1e-9, torch.inf]])
    order = sort_keys(values)[0].argsort()
    assert order.tolist() == [0, 5, 1, 2, 3, 4, 6]


def test_positive_ranks_pad_with_zero():
    distance = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    positive = torch.tensor([[True, False, True], [False, True, False]])
    ranks, counts = positive_ranks(distance, positive, torch.zeros(2, 3, dtype=torch.bool))
    assert ranks.tolist() == [[2, 3], [2, 0]] and counts.tolist() == [2, 1]


def loop(distance, query_pid, query_view, gallery_pid, gallery_view):
    """The loop that ReID code bases share: sort, filter, cumulate, one query at a time."""
    aps, firsts, inps = [], [], []
    for q, row in enumerate(distance):
        order = np.argsort(row, kind="stable")
        keep = ~((gallery_pid[order] == query_pid[q]) & (gallery_view[order] == query_view[q]))
        hits = (gallery_pid[order] == query_pid[q])[keep].astype(float)
        if not hits.any():
            continue
        positions = np.flatnonzero(hits) + 1
        aps.append(np.mean(np.arange(1, len(positions) + 1) / positions))
        firsts.append(positions[0])
        inps.append(len(positions) / positions[-1])
    cmc = [np.mean(np.array(firsts) <= r) for r in range(1, 51)]
    return np.mean(aps), cmc, np.mean(inps)


@pytest.mark.parametrize("chunk", [7 * 90, 2**24])
@pytest.mark.parametrize("decimals", [1, 6])  # 1: many ties
def test_equals_the_usual_loop_whatever_the_chunk(monkeypatch, chunk, decimals):
    monkeypatch.setattr(metrics, "CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, high, size) for high, size in ((12, 40), (3, 40), (12, 90), (3, 90))]
    distance = rng.random((40, 90)).round(decimals).astype(np.float32)
    result = rank(distance, *labels)
    mean_ap, cmc, minp = loop(distance, *labels)
    assert result.mAP == pytest.approx(mean_ap, abs=1e-12)
    assert result.mINP == pytest.approx(minp, abs=1e-12)
    assert result.cmc[1:].tolist() == pytest.approx(cmc, abs=1e-12)


def test_features_are_ranked_by_euclidean_distance():
    torch.manual_seed(0)
    query, gallery = torch.randn(10, 16), torch.randn(30, 16)
    torch.testing.assert_close(pairwise_distance(query, gallery), torch.cdist(query, gallery) ** 2, rtol=1e-4, atol=1e-4)
    labels = [torch.randint(0, high, (size,)) for high, size in ((4, 10), (2, 10), (4, 30), (2, 30))]
    by_features = evaluate_ranking(query, *labels[:2], gallery, *labels[2:])
    expected, *_ = loop(torch.cdist(query, gallery).numpy(), *(label.numpy() for label in labels))
    assert by_features.mAP == pytest.approx(expected, abs=1e-12)


def test_broken_features_are_refused():
    pid = torch.tensor([1, 1])
    with pytest.raises(UserError, match="nan or inf"):
        evaluate_ranking(torch.full((2, 3), torch.nan), pid, pid, torch.ones(2, 3), pid, pid)
