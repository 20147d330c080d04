"""HDM equals separate attentions that are called one by one."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modeling.branches.hdm import HDM, SUBSETS, present_subsets

# Positions along M of each subset, written out.
MEMBERS = {"R": [0], "N": [1], "T": [2], "RN": [0, 1], "RT": [0, 2], "NT": [1, 2], "RNT": [0, 1, 2]}
B, M, L, C = 4, 3, 5, 24


def make(**options):
    """Make an HDM with biases that are not 0, and tokens for it."""
    torch.manual_seed(0)
    hdm = HDM(C, num_heads=2, **options)
    for attention in hdm.attention.values():
        nn.init.normal_(attention.in_proj_bias)
        nn.init.normal_(attention.out_proj.bias)
    nn.init.normal_(hdm.queries)
    return hdm, torch.randn(B, M, L, C)


def reference(hdm, tokens, present=None):
    """Attend with torch's own module, one sample and one subset at a time, to the modalities that are present."""
    rows = []
    for b in range(len(tokens)):
        for s, (name, members) in enumerate(MEMBERS.items()):
            attention = nn.MultiheadAttention(C, 2, batch_first=True)
            attention.load_state_dict(hdm.attention[name].state_dict())
            attended = [tokens[b, m] for m in members if present is None or present[b, m]]
            if attended:
                joined = torch.cat(attended)[None]
                rows.append(attention(hdm.queries[s][None, None], joined, joined)[0].flatten())
            else:
                rows.append(torch.zeros(C))
    return torch.stack(rows).view(len(tokens), len(MEMBERS), C)


def test_equals_separate_attentions():
    hdm, tokens = make()
    hdm.eval()
    assert list(hdm.attention) == list(MEMBERS) == list(SUBSETS)
    torch.testing.assert_close(hdm(tokens), reference(hdm, tokens))


def test_gradients_equal_those_of_separate_attentions():
    hdm, tokens = make(dropout=0.0)
    weights = torch.randn(B, len(MEMBERS), C)
    found, expected = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    (hdm(found) * weights).sum().backward()
    query_gradient = hdm.queries.grad.clone()
    hdm.queries.grad = None
    (reference(hdm, expected) * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(query_gradient, hdm.queries.grad)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in hdm.parameters())


PRESENT = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 1]]).bool()


def test_absent_tokens_take_no_part():
    hdm, tokens = make()
    hdm.eval()
    expected = reference(hdm, tokens, PRESENT)
    torch.testing.assert_close(hdm(tokens, PRESENT), expected)
    other = torch.where(PRESENT[:, :, None, None], tokens, 1e4 * torch.ones_like(tokens))
    torch.testing.assert_close(hdm(other, PRESENT), expected)


def test_subsets_without_a_present_modality_are_zero_with_zero_gradient():
    hdm, tokens = make()
    tokens.requires_grad_()
    features = hdm(tokens, PRESENT)
    assert present_subsets(PRESENT).int().tolist() == [
        [1, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1, 1],  # without R
        [0, 0, 1, 0, 1, 1, 1],  # T alone
        [1, 0, 1, 1, 1, 1, 1],  # without N
    ]
    assert (features.abs().sum(dim=2) > 0).equal(present_subsets(PRESENT))
    features.square().sum().backward()
    assert tokens.grad.isfinite().all()
    assert (tokens.grad.abs().sum(dim=(2, 3)) > 0).equal(PRESENT)
    assert all(p.grad.isfinite().all() for p in hdm.parameters())


def test_all_present_is_as_without_a_mask():
    hdm, tokens = make()
    hdm.eval()
    torch.testing.assert_close(hdm(tokens, torch.ones(B, M, dtype=torch.bool)), hdm(tokens))


def test_dropout_is_for_training():
    hdm, tokens = make(dropout=0.5)
    assert not torch.equal(hdm(tokens), hdm(tokens))
    hdm.eval()
    assert torch.equal(hdm(tokens), hdm(tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_close(dtype):
    hdm, tokens = make()
    hdm.eval()
    with torch.autocast("cpu", dtype):
        found = hdm(tokens, PRESENT)
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), hdm(tokens, PRESENT), rtol=0.05, atol=0.05)


def test_size_and_cost_are_those_of_the_publication():
    """Rows B and C of DeMo's ablation say 87.99 -> 95.96 M parameters, 33.25 -> 34.07 G multiply-adds."""
    hdm = HDM(512)
    assert hdm.attention["R"].num_heads == 8
    parameters = sum(p.numel() for p in hdm.parameters())
    # A query, and an attention of four C x C matrices with biases, per subset.
    assert parameters == 7 * (512 + 4 * 512 * 512 + 4 * 512) == 7_357_952
    head = 3584 + 3584 * 171  # neck without its frozen bias, classifier
    assert 87.99 + (parameters + head) / 1e6 == pytest.approx(95.96, abs=0.01)

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        hdm.eval()(torch.zeros(1, 3, 129, 512))
    # Keys and values of 12 x 129 tokens, seven queries and outputs; the fused attention itself (0.2 %) may be counted.
    macs = 12 * 129 * 2 * 512 * 512 + 7 * 2 * 512 * 512
    assert counter.get_total_flops() == pytest.approx(2 * macs, rel=0.003)
    assert 33.25 + macs / 1e9 == pytest.approx(34.07, abs=0.01)
