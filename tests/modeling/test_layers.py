"""Batch normalisation of the present entries equals torch's own on these entries alone."""

import pytest
import torch
from torch import nn

from modeling.heads import BNNeckHead
from modeling.layers import BatchNorm

B, D = 9, 6


def make():
    torch.manual_seed(0)
    norm = BatchNorm(D)
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    return norm, torch.randn(B, D), torch.rand(B, D) < 0.6


@pytest.mark.parametrize("training", [True, False])
def test_each_channel_is_torchs_on_its_present_entries(training):
    norm, x, present = make()
    reference = BatchNorm(D)
    reference.load_state_dict(norm.state_dict())
    x.requires_grad_()
    found = norm.train(training)(x, present)
    weights = torch.randn(B, D)
    (found * weights).sum().backward()
    gradient = x.grad.clone()
    x.grad = None
    assert not found[~present].any() and not gradient[~present].any()

    total = 0.0
    for d in range(D):
        channel = nn.BatchNorm1d(1).train(training)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(channel, name).data.copy_(getattr(reference, name)[d : d + 1])
        rows = present[:, d]
        expected = channel(x[rows, d : d + 1])
        torch.testing.assert_close(found[rows, d : d + 1], expected)
        torch.testing.assert_close(norm.running_mean[d : d + 1], channel.running_mean)
        torch.testing.assert_close(norm.running_var[d : d + 1], channel.running_var)
        total = total + (expected.squeeze(1) * weights[rows, d]).sum()
    total.backward()
    torch.testing.assert_close(gradient, x.grad)


def test_all_present_is_the_plain_normalisation():
    norm, x, _ = make()
    other = BatchNorm(D)
    other.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x, torch.ones(B, D, dtype=torch.bool)), other(x))
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_entries_take_the_running_statistics(number):
    norm, x, present = make()
    present[:, 2] = False
    present[:number, 2] = True
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    found = norm(x, present)
    assert found.isfinite().all()
    assert norm.running_mean[2] == mean[2] and norm.running_var[2] == var[2]
    expected = (x[:number, 2] - mean[2]) / torch.sqrt(var[2] + norm.eps) * norm.weight[2] + norm.bias[2]
    torch.testing.assert_close(found[:number, 2], expected)


def test_an_absent_part_moves_no_statistic_of_a_head():
    """Rows whose second half is absent leave its statistics to the other rows, whatever they hold there."""
    torch.manual_seed(0)
    feature, present = torch.randn(6, 4), torch.ones(6, 2, dtype=torch.bool)
    present[:3, 1] = False
    heads = [BNNeckHead(4, 3) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    poisoned = feature.clone()
    poisoned[:3, 2:] = 1e6
    (necked, logits), (poisoned_necked, poisoned_logits) = heads[0](feature, present), heads[1](poisoned, present)
    assert torch.equal(necked, poisoned_necked) and torch.equal(logits, poisoned_logits)
    assert not necked[:3, 2:].any()
    torch.testing.assert_close(heads[0].neck.running_mean[2:], 0.1 * feature[3:, 2:].mean(0))
