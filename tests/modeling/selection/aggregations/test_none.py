"""Without an aggregation the tokens that come in go out."""

import torch

from modeling.selection.aggregations.none import NoAggregation


def test_the_kept_tokens_are_unchanged():
    tokens = torch.randn(2, 5, 8)
    found, weights = NoAggregation(8, 5)(tokens)
    assert found is tokens and weights is None
    assert not list(NoAggregation(8, 5).parameters())


def test_as_many_come_out_as_are_kept():
    assert NoAggregation.count(128, 0.5, 0.4) == 64
    assert NoAggregation.count(7, 0.33, 0.4) == 3  # ceil(2.31)
