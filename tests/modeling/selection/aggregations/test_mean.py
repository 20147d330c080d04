"""The mean aggregation is the mean."""

import torch

from modeling.selection.aggregations.mean import MeanAggregation


def test_one_token_is_the_mean_of_all_that_are_kept():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]]])
    mean, weights = MeanAggregation(2, 1)(tokens)
    torch.testing.assert_close(mean, torch.tensor([[[3.0, 3.0]]]))
    torch.testing.assert_close(weights, torch.full((1, 1, 3), 1 / 3))
    assert MeanAggregation.count(128, 0.5, 0.4) == 1
