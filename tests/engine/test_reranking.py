"""k-reciprocal re-ranking against a transcription of the paper's formulas, set by set."""

from functools import cache

import numpy as np
import pytest
import torch

from engine import reranking
from engine.reranking import rerank
from utils.errors import UserError


def brute_force(query, gallery, k1, k2, lambda_value):
    """Zhong et al., CVPR 2017, with the conventions of their code, in float64; sets where the paper has sets."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    everyone = range(len(features))
    distance = ((features[:, None] - features) ** 2).sum(axis=2)
    ranking = [np.argsort(row, kind="stable").tolist() for row in distance]
    original = distance / distance.max(axis=1, keepdims=True)

    def nearest(p, k):  # N(p, k), eq. 2, and p itself
        return set(ranking[p][: k + 1])

    @cache
    def reciprocal(p, k):  # R(p, k), eq. 3
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    def expanded(p):  # R*(p, k1), eq. 5
        result = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            other = reciprocal(q, int(np.around(k1 / 2)))
            if len(reciprocal(p, k1) & other) > 2 / 3 * len(other):
                result = result | other
        return result

    encoded = np.zeros_like(distance)  # V, eq. 7, scaled to sum 1
    for p in everyone:
        for g in expanded(p):
            encoded[p, g] = np.exp(-original[p, g])
        encoded[p] /= encoded[p].sum()
    encoded = np.array([encoded[ranking[p][:k2]].mean(axis=0) for p in everyone])  # eq. 11
    result = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        for g in range(len(gallery)):
            a, b = encoded[p], encoded[len(query) + g]
            jaccard = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()  # eq. 10
            result[p, g] = (1 - lambda_value) * jaccard + lambda_value * original[p, len(query) + g]  # eq. 12
    return result


def clusters(num_query, num_gallery, *, spread, seed=0):
    """Features of a few identities, as float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 16)) * spread
    parts = [centres[rng.integers(0, 6, n)] + rng.normal(size=(n, 16)) for n in (num_query, num_gallery)]
    return [part.astype(np.float32) for part in parts]


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"),
    [
        (20, 6, 0.3),
        (11, 1, 0.3),  # no query expansion; 11 / 2 rounds to 6
        (9, 15, 0.0),  # 9 / 2 rounds to 4; k2 beyond k1; the Jaccard distance alone
        (1, 2, 0.7),
        (500, 400, 0.3),  # more than there are
    ],
)
def test_equals_the_formulas(spread, k1, k2, lambda_value):
    query, gallery = clusters(23, 61, spread=spread)
    expected = brute_force(query, gallery, k1, k2, lambda_value)
    found = rerank(torch.from_numpy(query), torch.from_numpy(gallery), k1=k1, k2=k2, lambda_value=lambda_value)
    assert found.shape == (23, 61) and found.dtype == torch.float32
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_ties_go_by_index_and_the_gallery_may_be_the_query():
    """As RGBNT201's: every image is there twice. Whole numbers, so that every distance is exact."""
    features = np.random.default_rng(0).integers(-1, 2, (40, 5)).astype(np.float32)
    expected = brute_force(features, features, 10, 4, 0.3)
    found = rerank(torch.from_numpy(features), torch.from_numpy(features), k1=10, k2=4)
    assert np.abs(found.numpy() - expected).max() < 1e-5
    assert found.diagonal().max() < found.median()


@pytest.mark.parametrize("chunk_elements", [1, 900, 2500])
def test_chunks_change_nothing(monkeypatch, chunk_elements):
    features = np.random.default_rng(0).integers(-3, 4, (70, 5)).astype(np.float32)
    query, gallery = torch.from_numpy(features[:30]), torch.from_numpy(features[30:])
    whole = rerank(query, gallery, k1=8, k2=3)
    monkeypatch.setattr(reranking, "CHUNK_ELEMENTS", chunk_elements)
    monkeypatch.setattr(reranking, "OVERLAP_ELEMENTS", {"cpu": chunk_elements})
    torch.testing.assert_close(rerank(query, gallery, k1=8, k2=3), whole, rtol=0, atol=1e-6)


def test_lambda_one_is_the_normalised_original_distance():
    query, gallery = map(torch.from_numpy, clusters(5, 9, spread=1.0))
    distance = torch.cdist(query, torch.cat([query, gallery])) ** 2
    expected = distance[:, 5:] / distance.amax(dim=1, keepdim=True)
    torch.testing.assert_close(rerank(query, gallery, k1=3, k2=2, lambda_value=1.0), expected)


def test_equal_features_everywhere_give_finite_distances():
    found = rerank(torch.ones(4, 3), torch.ones(6, 3), k1=3, k2=2)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "k1 of the re-ranking is 0; it must be at least 1"),
        ({"k2": 0}, "k2 of the re-ranking is 0; it must be at least 1"),
        ({"lambda_value": 1.5}, r"lambda_value of the re-ranking is 1\.5; it must be in \[0, 1\]"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        rerank(torch.ones(2, 3), torch.ones(2, 3), **options)


def test_broken_features_are_refused():
    with pytest.raises(UserError, match="re-ranked hold nan or inf"):
        rerank(torch.ones(2, 3), torch.tensor([[1.0, torch.nan, 1.0]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_card_as_on_the_cpu():
    features = torch.randint(-3, 4, (300, 8), generator=torch.Generator().manual_seed(0)).float()
    query, gallery = features[:100], features[100:]
    torch.testing.assert_close(rerank(query.cuda(), gallery.cuda()).cpu(), rerank(query, gallery), rtol=0, atol=1e-5)
