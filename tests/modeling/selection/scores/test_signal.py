"""Signal's votes equal a case worked by hand."""

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
