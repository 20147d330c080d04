"""PIFE equals its formula, modality by modality."""

import pytest
import torch
from torch import nn

from data.sample import MODALITIES
from modeling.branches.pife import PIFE

B, L, C = 3, 6, 8


def make():
    torch.manual_seed(0)
    pife = PIFE(C)
    for reduce in pife.reduce.values():
        nn.init.normal_(reduce[0].weight)
        nn.init.normal_(reduce[0].bias)
    return pife, torch.randn(B, len(MODALITIES), L, C)


def test_equals_the_formula():
    pife, tokens = make()
    assert list(pife.reduce) == ["RGB", "NI", "TI"]
    found = pife(tokens)
    assert found.shape == tokens.shape
    assert torch.equal(found[:, :, 1:], tokens[:, :, 1:]), "the patches stay"
    for m, name in enumerate(MODALITIES):
        norm, linear, _ = pife.reduce[name]
        for b in range(B):
            patches = sum(tokens[b, m, i] for i in range(1, L)) / (L - 1)
            x = torch.cat([tokens[b, m, 0], patches])
            x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5) * norm.weight + norm.bias
            x = linear.weight @ x + linear.bias
            torch.testing.assert_close(found[b, m, 0], x * torch.sigmoid(1.702 * x))


def test_every_parameter_learns():
    pife, tokens = make()
    pife(tokens)[:, :, 0].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in pife.parameters())


@pytest.mark.parametrize("modalities", [("RGB",), ("RGB", "TI")])
def test_modalities_are_data(modalities):
    pife = PIFE(C, modalities=modalities)
    assert pife(torch.randn(1, len(modalities), L, C)).shape == (1, len(modalities), L, C)


def test_size_is_that_of_the_publication():
    """Rows A and B of DeMo's ablation say 86.41 -> 87.99 M parameters."""
    parameters = sum(p.numel() for p in PIFE(512).parameters())
    assert parameters == 3 * (2 * 1024 + 1024 * 512 + 512) == 1_580_544
    assert 86.41 + parameters / 1e6 == pytest.approx(87.99, abs=0.01)
