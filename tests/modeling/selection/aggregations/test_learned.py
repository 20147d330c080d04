"""The learned aggregation equals SEPS eq. 4, worked independently."""

import math

import torch
from torch.nn import functional as F

from modeling.selection import TokenAggregation
from modeling.selection.aggregations.learned import masked_softmax


def test_aggregation_by_hand():
    """The expected value is eq. 4 with its parts written out."""
    torch.manual_seed(0)
    aggregation, tokens = TokenAggregation(20, 3), torch.randn(1, 6, 20)
    norm, first, _, second = aggregation.mlp
    assert first.out_features == 4  # int(0.2 C)
    hidden = F.gelu(F.linear(F.layer_norm(tokens[0], (20,), norm.weight, norm.bias), first.weight, first.bias))
    logits = aggregation.scale * F.linear(hidden, second.weight, second.bias).T  # (3, 6)
    expected = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True) @ tokens[0]
    torch.testing.assert_close(aggregation(tokens)[0][0], expected)


def test_rows_of_weights_sum_to_one_and_mask_equals_gathering():
    torch.manual_seed(0)
    tokens = torch.randn(3, 16, 20)
    aggregation = TokenAggregation(20, 4)
    with torch.no_grad():
        aggregation.scale.fill_(3.0)
    indices = torch.stack([torch.randperm(16)[:7] for _ in range(3)])
    mask = torch.zeros(3, 16).scatter(1, indices, 1.0)
    gathered, weights = aggregation(tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, 20)))
    masked, masked_weights = aggregation(tokens, mask)
    torch.testing.assert_close(masked, gathered, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))
    torch.testing.assert_close(masked_weights.sum(-1), torch.ones(3, 4))
    assert not masked_weights.masked_select(mask.unsqueeze(1).expand_as(masked_weights) == 0).any()


def test_masked_softmax_survives_dropped_logits_that_tower_over_the_kept():
    logits = torch.tensor([[[0.0, 1.0, 500.0]]], requires_grad=True)
    mask = torch.tensor([[[1.0, 1.0, 0.0]]], requires_grad=True)
    weights = masked_softmax(logits, mask)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1 / (1 + math.e), math.e / (1 + math.e), 0.0]))
    weights[..., 0].sum().backward()
    assert torch.isfinite(logits.grad).all() and torch.isfinite(mask.grad).all()
