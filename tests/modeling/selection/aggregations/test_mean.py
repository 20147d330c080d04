"""The mean aggregation is the mean."""

import torch

from modeling.selection.aggregations.mean import MeanAggregation
from tests.helpers.selection import make_selection


def test_one_token_is_the_mean_of_all_that_are_kept():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]]])
    mean, weights = MeanAggregation(2, 1)(tokens)
    torch.testing.assert_close(mean, torch.tensor([[[3.0, 3.0]]]))
    torch.testing.assert_close(weights, torch.full((1, 1, 3), 1 / 3))
    assert MeanAggregation.count(128, 0.5, 0.4) == 1


def test_every_kept_patch_gets_the_same_share_of_the_gradient_and_no_other():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 11, 4, requires_grad=True)
    options = {"score": "sdtps", "aggregation": "mean", "sparse_ratio": 0.5, "extra_token": False}
    outputs, chosen = make_selection(4, 10, **options)(tokens)
    assert outputs.shape == (2, 3, 1, 4)
    outputs.sum().backward()
    for m in range(3):
        wanted = torch.zeros(2, 10).scatter(1, chosen.indices[m], 1 / 5)
        torch.testing.assert_close(tokens.grad[:, m, 1:], wanted.unsqueeze(-1).expand(-1, -1, 4))
