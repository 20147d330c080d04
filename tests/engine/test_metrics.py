"""AP, CMC and mINP on cases worked by hand, and against the usual loop over queries."""

import numpy as np
import pytest
import torch

from engine import metrics
from engine.metrics import (
    Pairs,
    evaluate_ranking,
    ignored_pairs,
    pairwise_distance,
    positive_ranks,
    rank_distances,
    same_identity_pairs,
)
from utils.errors import UserError


def rank(distance, query_pid, query_group, gallery_pid, gallery_group, **options):
    """`rank_distances` of plain lists or arrays."""
    labels = [torch.as_tensor(values) for values in (query_pid, query_group, gallery_pid, gallery_group)]
    return rank_distances(torch.as_tensor(distance), *labels, **options)


def ranks_by_masks(distance, positive, ignored):
    """`positive_ranks` of masks (Q, G) bool; an ignored match does not count."""
    return positive_ranks(distance, *(Pairs(*mask.nonzero(as_tuple=True)) for mask in (positive & ~ignored, ignored)))


def test_ap_cmc_and_minp_by_hand():
    """gallery:  a: id 1 group 0, b: id 2 group 1, c: id 1 group 1, d: id 2 group 1, e: id 1 group 1

    query 0 (id 1, group 0) does not see a (own group); b (.1), c (.2), d (.3), e (.4): positives c at 2 and e at 4,
        AP = (1/2 + 2/4) / 2 = 0.5, first match at 2, INP = 2/4.
    query 1 (id 2, group 0) sees d (.1), e (.2), c (.3), b (.4), a (.5): positives d at 1 and b at 4,
        AP = (1/1 + 2/4) / 2 = 0.75, first match at 1, INP = 2/4.
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


CAMERA = {"query": [0, 1], "gallery": [0, 1, 2, 0, 1]}
SCENE = {"query": [5, 5], "gallery": [5, 6, 6, 6, 5]}


@pytest.mark.parametrize(
    ("group", "ap", "first", "inp"),
    [
        # Query 0 (id 7, camera 0) drops a and d; left b (7), c (8), e (8): b at 1: AP = 1, INP = 1.
        # Query 1 (id 8, camera 1) drops e; left d (7), c (8), b (7), a (7): c at 2: AP = 1/2, INP = 1/2.
        (CAMERA, [1.0, 1 / 2], [1, 2], [1.0, 1 / 2]),
        # Query 0 (scene 5) drops a; left b (7), c (8), d (7), e (8): b at 1, d at 3: AP = (1 + 2/3) / 2, INP = 2/3.
        # Query 1 (scene 5) drops e: as above.
        (SCENE, [5 / 6, 1 / 2], [1, 2], [2 / 3, 1 / 2]),
        # Query 0 in scene 6 drops b and d; left a (7), c (8), e (8): a at 1: AP = 1, INP = 1.
        ({**SCENE, "query": [6, 5]}, [1.0, 1 / 2], [1, 2], [1.0, 1 / 2]),
    ],
)
def test_the_protocol_is_which_group_is_given(group, ap, first, inp):
    """The same images by camera and by scene: a (id 7), b (7), c (8), d (7), e (8)."""
    distance = [[0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5]]
    result = rank(distance, [7, 8], group["query"], [7, 7, 8, 7, 8], group["gallery"])
    assert result.ap.tolist() == pytest.approx(ap)
    assert result.mAP == pytest.approx(sum(ap) / 2)
    assert result.mINP == pytest.approx(sum(inp) / 2)
    assert result.cmc[1:4].tolist() == [np.mean([f <= r for f in first]) for r in (1, 2, 3)]


def test_ignored_are_same_identity_and_same_group():
    labels = [torch.tensor(values) for values in ([1, 2], [0, 0], [1, 1, 2, 2], [0, 1, 0, 1])]
    assert ignored_pairs(*labels).tolist() == [[True, False, False, False], [False, False, True, False]]


def test_pairs_of_the_same_identity():
    """By query, then by gallery index; an identity that the gallery lacks has none."""
    rows, columns = same_identity_pairs(torch.tensor([5, 9, 3, 5]), torch.tensor([3, 5, 7, 5, 3, 5]))
    assert rows.tolist() == [0, 0, 0, 2, 2, 3, 3, 3]
    assert columns.tolist() == [1, 3, 5, 0, 4, 1, 3, 5]


def test_an_ignored_image_leaves_its_rank_to_the_next():
    """Three ignored images are nearest, then a match, then another ignored one at the match's very distance."""
    result = rank([[0.1, 0.1, 0.2, 0.3, 0.3, 0.9]], [1], [0], [1, 1, 1, 1, 1, 2], [0, 0, 0, 1, 0, 1])
    assert (result.mAP, result.mINP, result.cmc[1].item()) == (1.0, 1.0, 1.0)


def test_queries_without_a_match_are_counted_and_not_scored():
    """Query 1's identity is not in the gallery, query 2's only in its own group; query 0 finds its own at rank 2."""
    result = rank(torch.tensor([[0.2, 0.1, 0.3]]).repeat(3, 1), [1, 9, 2], [0, 0, 1], [1, 2, 3], [1, 1, 1])
    assert (result.mAP, result.mINP, result.num_queries, result.num_valid_queries) == (0.5, 0.5, 3, 1)
    assert result.cmc[1:3].tolist() == [0, 1]
    assert result.ap.isnan().tolist() == [False, True, True]


def test_no_query_with_a_match_names_identities_and_groups():
    with pytest.raises(
        UserError,
        match=r"No query has a match.* identities: 1; groups: 3\. Gallery identities: 1, 2; groups: 3, 4\..*cameras",
    ):
        rank([[0.1, 0.2, 0.3]], [1], [3], [1, 2, 1], [3, 4, 3])


def test_ties_go_by_gallery_index():
    assert rank([[0.5, 0.5, 0.5]], [1], [0], [2, 1, 2], [1, 1, 1]).mAP == 0.5
    assert rank([[0.5, 0.5, 0.5]], [1], [0], [1, 2, 2], [1, 1, 1]).mAP == 1.0
    # Matches at 0 and 3 of four equal ones: (1/1 + 2/4) / 2.
    assert rank([[0.5, 0.5, 0.5, 0.5]], [1], [0], [1, 2, 2, 1], [1, 1, 1, 1]).mAP == 0.75
    # -0.0 and 0.0 are one distance.
    assert rank([[0.0, -0.0]], [1], [0], [1, 2], [1, 1]).mAP == 1.0


def test_positive_ranks_pad_with_zero():
    distance = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    positive = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    ignored = torch.tensor([[False, False, False], [True, False, False], [True, False, False]])
    ranks, counts = ranks_by_masks(distance, positive, ignored)
    assert ranks.tolist() == [[2, 3], [1, 0], [0, 0]] and counts.tolist() == [2, 1, 0]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("levels", [2, 30, 10**6])  # 2: nearly all distances are equal
def test_positive_ranks_equal_a_sort(scale, levels):
    """Whatever the spread of the distances, an outlier among the positives included."""
    rng = np.random.default_rng(levels)
    distance = (rng.integers(0, levels, (25, 301)) / levels + 3).astype(np.float32) * np.float32(scale)
    positive = rng.random(distance.shape) < 0.05
    ignored = rng.random(distance.shape) < 0.05
    distance[0, np.flatnonzero(positive[0])[0]] *= 1000
    ranks, counts = ranks_by_masks(*map(torch.from_numpy, (distance, positive, ignored)))
    for row in range(len(distance)):
        order = [i for i in np.argsort(distance[row], kind="stable") if not ignored[row, i]]
        expected = [place for place, i in enumerate(order, start=1) if positive[row, i]]
        assert ranks[row, : counts[row]].tolist() == expected
        assert not ranks[row, counts[row] :].any()


def loop(distance, query_pid, query_group, gallery_pid, gallery_group):
    """The loop that ReID code bases share: sort, filter, cumulate, one query at a time."""
    indices = np.argsort(distance, axis=1, kind="stable")
    matches = gallery_pid[indices] == query_pid[:, None]
    aps, cmcs, inps = [], [], []
    for q, order in enumerate(indices):
        removed = (gallery_pid[order] == query_pid[q]) & (gallery_group[order] == query_group[q])
        hits = matches[q][~removed]
        if not hits.any():
            continue
        cumulated = hits.cumsum()
        aps.append((cumulated / np.arange(1, len(hits) + 1) * hits).sum() / hits.sum())
        cmcs.append(np.minimum(cumulated, 1)[:50])
        inps.append(hits.sum() / (np.flatnonzero(hits)[-1] + 1))
    return np.mean(aps), np.mean(cmcs, axis=0), np.mean(inps), len(aps)


@pytest.mark.parametrize("sort_elements", [1, 7 * 90, 2**18])
@pytest.mark.parametrize("chunk", [None, 1, 17])
@pytest.mark.parametrize("decimals", [1, 6])  # 1: many ties
def test_equals_the_usual_loop_whatever_the_chunks(monkeypatch, sort_elements, chunk, decimals):
    monkeypatch.setattr(metrics, "SORT_ELEMENTS", sort_elements)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, high, size) for high, size in ((12, 40), (3, 40), (11, 90), (3, 90))]
    distance = rng.random((40, 90)).round(decimals).astype(np.float32)
    result = rank(distance, *labels, chunk=chunk)
    mean_ap, cmc, minp, valid = loop(distance, *labels)
    assert result.mAP == pytest.approx(mean_ap, abs=1e-12)
    assert result.mINP == pytest.approx(minp, abs=1e-12)
    assert result.cmc[1:].tolist() == pytest.approx(cmc.tolist(), abs=1e-12)
    assert (result.num_queries, result.num_valid_queries) == (40, valid) and valid < 40


@pytest.mark.parametrize("chunk", [None, 3])
def test_features_are_ranked_by_squared_euclidean_distance(chunk):
    """Whole numbers, so that every distance is exact and ties are ties."""
    rng = np.random.default_rng(1)
    query, gallery = rng.integers(-2, 3, (10, 6)), rng.integers(-2, 3, (300, 6))
    labels = [rng.integers(0, high, size) for high, size in ((4, 10), (2, 10), (4, 300), (2, 300))]
    distance = ((query[:, None] - gallery) ** 2).sum(2)
    features = [torch.from_numpy(x).half() for x in (query, gallery)]
    assert pairwise_distance(*features).dtype == torch.float32
    assert pairwise_distance(*features).tolist() == distance.tolist()
    tensors = [torch.from_numpy(label) for label in labels]
    result = evaluate_ranking(features[0], *tensors[:2], features[1], *tensors[2:], chunk=chunk)
    mean_ap, cmc, minp, _ = loop(distance, *labels)
    assert (result.mAP, result.mINP) == (pytest.approx(mean_ap, abs=1e-12), pytest.approx(minp, abs=1e-12))
    assert result.cmc[1:].tolist() == pytest.approx(cmc.tolist(), abs=1e-12)


def test_distance_of_equal_features_is_never_negative():
    features = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) + 100
    assert pairwise_distance(features, features).min() >= 0


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_features_and_distances_are_refused(broken):
    pid, groups = torch.tensor([1, 1]), torch.tensor([[0, 0], [1, 1]])
    good, bad = torch.ones(2, 3), torch.ones(2, 3).index_fill(0, torch.tensor([1]), broken)
    for query, gallery in ((bad, good), (good, bad)):
        with pytest.raises(UserError, match="features to be ranked hold nan or inf"):
            evaluate_ranking(query, pid, groups[0], gallery, pid, groups[1])
    with pytest.raises(UserError, match="distances to be ranked hold nan or inf"):
        rank_distances(torch.tensor([[1.0, broken], [1.0, 1.0]]), pid, groups[0], pid, groups[1])


@pytest.mark.parametrize(("num_query", "num_gallery"), [(0, 2), (2, 0)])
def test_an_empty_side_is_refused(num_query, num_gallery):
    query, gallery = torch.zeros(num_query, dtype=int), torch.zeros(num_gallery, dtype=int)
    with pytest.raises(UserError, match=f"{num_query} queries and {num_gallery} gallery images"):
        rank_distances(torch.zeros(num_query, num_gallery), query, query, gallery, gallery)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ranks_on_the_gpu_equal_those_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    distance = torch.rand(60, 2000, generator=generator)
    labels = [
        torch.randint(0, high, (size,), generator=generator) for high, size in ((9, 60), (3, 60), (9, 2000), (3, 2000))
    ]
    on_cpu = rank_distances(distance, *labels)
    on_gpu = rank_distances(distance.cuda(), *(label.cuda() for label in labels))
    assert on_gpu.ap.tolist() == on_cpu.ap.tolist()
    assert on_gpu.cmc.tolist() == on_cpu.cmc.tolist()
