"""Signal's votes equal a case worked by hand."""

import math

import pytest
import torch

from modeling.selection.scores.signal import SignalScore
from modeling.selection.scores.votes import count_votes


def test_votes_by_hand():
    """The patches of every modality are the same five; the globals of RGB, NI and TI prefer others among them."""
    patches = torch.tensor([[4.0, 0.0], [3.0, 1.0], [1.0, 1.5], [0.0, 4.0], [-1.0, 3.0]])
    globals_ = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tokens = torch.cat([globals_[:, None], patches.expand(3, 5, 2)], dim=1)[None]
    value = SignalScore(num_patches=5, sparse_ratio=0.4)(tokens).value
    # <g, p>: RGB 4, 3, 1, 0, -1 votes for 0 and 1; NI 0, 1, 1.5, 4, 3 for 3 and 4; TI 4, 4, 2.5, 4, 2 for 0 and 1.
    assert value.shape == (1, 3, 5)
    assert value[0, 0].floor().tolist() == [2, 2, 0, 1, 1]
    shares = ((globals_ @ patches.T) / 2**0.5).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(value[0, 1], torch.tensor([2.0, 2, 0, 1, 1]) + shares)
    without_ti = SignalScore(num_patches=5, sparse_ratio=0.4)(tokens, torch.tensor([[True, True, False]])).value
    assert without_ti[0, 2].floor().tolist() == [1, 1, 0, 1, 1]


def test_equal_counts_go_by_the_mean_share():
    rankings = torch.tensor([[5.0, 3.0, 2.0], [1.0, 2.0, 7.0]])
    value = count_votes(rankings, 1)
    torch.testing.assert_close(value, torch.tensor([1 + (0.5 + 0.1) / 2, (0.3 + 0.2) / 2, 1 + (0.2 + 0.7) / 2]))
    assert value.argsort(descending=True).tolist() == [2, 0, 1]


def test_votes_of_any_image_counted_one_by_one():
    """Three modalities with different patches, in float64, and the second image lacks NI."""
    torch.manual_seed(0)
    tokens, kept = torch.randn(2, 3, 8, 6, dtype=torch.float64), 3
    present = torch.tensor([[True, True, True], [True, False, True]])
    score = SignalScore(num_patches=7, sparse_ratio=0.4)(tokens.float(), present).value
    for b in range(2):
        for m in range(3):
            votes, shares = [0] * 7, [0.0] * 7
            for voter in (g for g in range(3) if present[b, g]):
                products = [float(tokens[b, voter, 0] @ tokens[b, m, 1 + n]) / math.sqrt(6) for n in range(7)]
                total = sum(map(math.exp, products))
                for n in range(7):
                    votes[n] += sum(other > products[n] for other in products) < kept
                    shares[n] += math.exp(products[n]) / total / 3
            wanted = [float(vote) + share for vote, share in zip(votes, shares, strict=True)]
            assert score[b, m].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_ballots_pass_on_no_gradient():
    tokens = torch.randn(1, 3, 8, 6, requires_grad=True)
    assert not SignalScore(num_patches=7, sparse_ratio=0.4)(tokens).value.requires_grad
