"""ATMoE equals separate gates and experts, head by head and feature by feature."""

import pytest
import torch
from torch import nn

from modeling.branches.atmoe import ATMoE
from modeling.layers import QuickGELU
from utils.errors import UserError

B, F, C, H = 6, 7, 12, 3
D = C // H


def make():
    """Make an ATMoE whose normalisations have seen data and have random weights, and features for it."""
    torch.manual_seed(0)
    moe = ATMoE(C, num_heads=H)
    for norm in (moe.gate.reduce[2], moe.experts.norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return moe, torch.randn(B, F, C)


def expert_of(moe, head, feature):
    """Return the expert of a head and a feature as a separate module, with a copy of its weights."""
    expert = nn.Sequential(nn.Linear(D, D), QuickGELU(), nn.BatchNorm1d(D))
    start = (head * F + feature) * D
    with torch.no_grad():
        expert[0].weight.copy_(moe.experts.weight[head, feature])
        expert[0].bias.copy_(moe.experts.bias[head, feature])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(expert[2], name).copy_(getattr(moe.experts.norm, name)[start : start + D])
    return expert.train(moe.training)


def reference(moe, features):
    """Follow the formulas, with the gate in plain arithmetic and the experts one by one."""
    linear, _, norm = moe.gate.reduce
    joined = nn.functional.linear(features.reshape(len(features), F * C), linear.weight, linear.bias)
    joined = joined * torch.sigmoid(1.702 * joined)
    mean, var = (joined.mean(0), joined.var(0, correction=0)) if moe.training else (norm.running_mean, norm.running_var)
    query = ((joined - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias) @ moe.gate.q.weight.T
    outputs = []
    for h in range(H):
        part = slice(h * D, (h + 1) * D)
        keys = features @ moe.gate.k.weight.T
        scores = torch.stack([(query[:, part] * keys[:, f, part]).sum(1) / D**0.5 for f in range(F)], dim=1)
        gates = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # (B, F)
        for f in range(F):
            outputs.append(gates[:, f : f + 1] * expert_of(moe, h, f)(features[:, f, part]))
    return torch.cat(outputs, dim=1)  # for head, for feature


@pytest.mark.parametrize("training", [True, False])
def test_equals_separate_experts(training):
    moe, features = make()
    moe.train(training)
    expected = reference(moe, features)
    found = moe(features)
    assert found.shape == (B, F * C)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_those_of_separate_experts():
    moe, features = make()
    expert = expert_of(moe, 2, 5)
    expert(features[:, 5, 2 * D :])
    moe(features)
    start = (2 * F + 5) * D
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(moe.experts.norm, name)[start : start + D], getattr(expert[2], name))


def test_every_parameter_learns():
    moe, features = make()
    (moe(features) * torch.randn(B, F * C)).sum().backward()
    for name, parameter in moe.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_gates_are_a_softmax_over_the_features():
    moe, features = make()
    gates = moe.gate(features)
    assert gates.shape == (B, H, F) and gates.dtype == torch.float32
    torch.testing.assert_close(gates.sum(dim=2), torch.ones(B, H))
    assert gates.std(dim=2).min() > 0


def test_features_that_are_not_valid_get_no_gate_and_come_out_as_zero():
    moe, features = make()
    moe.eval()
    valid = torch.rand(B, F, generator=torch.Generator().manual_seed(1)) < 0.5
    valid[:, 3] = True
    gates, among_all = moe.gate(features, valid), moe.gate(features)
    expected = among_all * valid[:, None]
    torch.testing.assert_close(gates, expected / expected.sum(dim=2, keepdim=True))
    found = moe(features, valid)
    ratio = (gates / among_all)[..., None].expand(-1, -1, -1, D).flatten(1)
    torch.testing.assert_close(found, ratio * moe(features))
    assert not found.view(B, H, F, D).transpose(1, 2)[~valid].any()
    found.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in moe.parameters())


def test_all_valid_is_as_without_a_mask():
    moe, features = make()
    # Up to rounding: the statistics of what counts are summed in another order.
    torch.testing.assert_close(moe(features, torch.ones(B, F, dtype=torch.bool)), moe(features))


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_takes_the_running_statistics(training):
    moe, features = make()
    expected = moe.eval()(features)[:1]
    torch.testing.assert_close(moe.train(training)(features[:1]), expected)


def test_experts_start_as_linear_layers_do():
    torch.manual_seed(0)
    weight = ATMoE(512, num_heads=4).experts.weight
    assert weight.shape == (4, 7, 128, 128)
    assert 0.99 * 128**-0.5 < weight.abs().max() <= 128**-0.5
    assert weight.std().item() == pytest.approx(nn.Linear(128, 128).weight.std().item(), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_close(dtype):
    moe, features = make()
    moe.eval()
    with torch.autocast("cpu", dtype):
        found = moe(features)
    assert found.dtype == torch.float32 and found.isfinite().all()
    torch.testing.assert_close(found, moe(features), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_width_are_refused(heads):
    with pytest.raises(UserError, match=f"MODEL.HEAD is {heads}; .* 12 channels .* one of 1, 2, 3, 4, 6, 12"):
        ATMoE(12, num_heads=heads)


def test_size_is_that_of_the_publication():
    """Rows C and D of DeMo's ablation say 95.96 -> 98.79 M parameters, with HEAD 4."""
    parameters = sum(p.numel() for p in ATMoE(512, num_heads=4).parameters())
    gate = (3584 * 512 + 512) + 2 * 512 + 2 * 512 * 512
    experts = 4 * 7 * (128 * 128 + 128 + 2 * 128)
    assert parameters == gate + experts == 2_830_336
    assert 95.96 + parameters / 1e6 == pytest.approx(98.79, abs=0.01)


def test_quick_gelu_by_hand():
    # 1 / (1 + exp(-1.702)) = 0.845796; -2 / (1 + exp(3.404)) = -2 / 31.08418 = -0.064341
    found = QuickGELU()(torch.tensor([0.0, 1.0, -2.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.845796, -0.064341]), rtol=0, atol=1e-6)
