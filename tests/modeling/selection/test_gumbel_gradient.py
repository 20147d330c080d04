"""The gradient that reaches the score is bounded and right, and that of the -1e10 form is not."""

import pytest
import torch
from torch.nn import functional as F

from modeling.selection import TokenAggregation
from modeling.selection.aggregations.learned import masked_softmax
from tests.helpers.selection import make_sdtps


def textbook(logits, mask):
    """Compute W = D exp(l) / sum(D exp(l)) as it stands, in the precision of its inputs."""
    return mask * logits.exp() / (mask * logits.exp()).sum(-1, keepdim=True)


def with_1e10(logits, mask):
    """Compute W in the form of the paper and of the public code."""
    return (logits - (1 - mask) * 1e10).softmax(-1)


def hard_mask(rows, tokens, kept):
    return torch.zeros(rows, 1, tokens).scatter(2, torch.rand(rows, 1, tokens).argsort(2)[..., :kept], 1.0)


def test_gradient_equals_autograd_of_the_textbook_form():
    torch.manual_seed(0)
    logits, out_weight = torch.randn(4, 5, 12), torch.randn(4, 5, 12)
    mask = hard_mask(4, 12, 6)
    grads = []
    for form in (masked_softmax, textbook):
        leaves = logits.clone().requires_grad_(), mask.clone().requires_grad_()
        (form(*leaves) * out_weight).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(grads[0], grads[1])
    dropped = grads[0][1][mask == 0]
    assert (dropped.abs() > 1e-4).any(), "a dropped patch must be able to earn its place"


def test_gradient_in_the_mask_equals_finite_differences():
    """The differences are those of the textbook form in float64, where D can move away from 0 and 1."""
    torch.manual_seed(0)
    logits, out_weight = torch.randn(1, 3, 8).double(), torch.randn(1, 3, 8).double()
    mask = hard_mask(1, 8, 4).double().requires_grad_()
    (masked_softmax(logits, mask) * out_weight).sum().backward()
    step = 1e-6
    for i in range(8):
        nudge = torch.zeros_like(mask)
        nudge[..., i] = step
        with torch.no_grad():
            up, down = ((textbook(logits, mask + sign * nudge) * out_weight).sum() for sign in (1, -1))
        assert mask.grad[0, 0, i].item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-5, abs=1e-8)


def predictor_gradient(form, monkeypatch, *, use_gumbel=True, dtype=None, seed=0, tau=1.0):
    """Return the gradient norm at the RGB predictor (width 512, 128 patches, mean pool, linear, cross-entropy)."""
    monkeypatch.setattr("modeling.selection.aggregations.learned.masked_softmax", form)
    torch.manual_seed(seed)
    sdtps = make_sdtps(512, 128, use_gumbel=use_gumbel, gumbel_tau=tau)
    classifier, tokens = torch.nn.Linear(1536, 171), torch.randn(8, 3, 129, 512)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        out, _ = sdtps(tokens)
        logits = classifier(out.mean(2).flatten(1))
    F.cross_entropy(logits.float(), torch.arange(8)).backward()
    grads = [p.grad for p in sdtps.score.predictor["RGB"].parameters()]
    return torch.stack([grad.norm() for grad in grads]).norm().item()


def test_gumbel_gradient_is_sane_and_the_1e10_form_is_not(monkeypatch):
    """The forward values are the same, and the gradients differ by a factor of a thousand million."""
    bounded = predictor_gradient(masked_softmax, monkeypatch)
    reference = predictor_gradient(textbook, monkeypatch)
    plain = predictor_gradient(masked_softmax, monkeypatch, use_gumbel=False)
    exploding = predictor_gradient(with_1e10, monkeypatch)
    assert bounded == pytest.approx(reference, rel=1e-4)
    assert 0.2 * plain < bounded < 5 * plain, "of the size of the gradient through the extra token"
    assert bounded != pytest.approx(plain, rel=1e-4), "the straight-through part must arrive"
    assert exploding > 1e8 * bounded
    assert predictor_gradient(with_1e10, monkeypatch, tau=10.0) > 1e6 * bounded, "tau only hides it"


def test_forward_value_does_not_tell_the_two_forms_apart():
    torch.manual_seed(0)
    logits, mask = torch.randn(4, 5, 12), hard_mask(4, 12, 6)
    torch.testing.assert_close(with_1e10(logits, mask), masked_softmax(logits, mask))


def test_without_gumbel_the_predictor_learns_through_the_extra_token_alone():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    sdtps = make_sdtps(20, 16)
    out, _ = sdtps(tokens)
    predictor = sdtps.score.predictor["RGB"]
    kept = torch.autograd.grad(out[:, :, :-1].sum(), predictor.parameters(), retain_graph=True)
    extra = torch.autograd.grad(out[:, :, -1].pow(2).sum(), predictor.parameters())
    assert not any(grad.any() for grad in kept)
    assert all(grad.abs().sum() > 0 for grad in extra)


def test_with_gumbel_the_kept_tokens_teach_the_predictor_unless_the_mask_is_off():
    for mask_aggregation in (True, False):
        torch.manual_seed(0)
        sdtps = make_sdtps(20, 16, use_gumbel=True, mask_aggregation=mask_aggregation)
        out, _ = sdtps(torch.randn(2, 3, 17, 20))
        parameters = sdtps.score.predictor["RGB"].parameters()
        grads = torch.autograd.grad(out[:, 0, :-1].pow(2).sum(), parameters, allow_unused=True)
        assert all((grad is not None and grad.abs().sum() > 0) == mask_aggregation for grad in grads)


def test_in_float16_the_gradient_of_the_1e10_form_is_not_finite():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 12).half(), hard_mask(2, 12, 6).half()
    for form, finite in ((with_1e10, False), (masked_softmax, True)):
        leaf = mask.clone().requires_grad_()
        form(logits, leaf).pow(2).sum().backward()
        assert torch.isfinite(leaf.grad).all() == finite


def test_gumbel_gradient_is_finite_under_float16_autocast(monkeypatch):
    for seed in range(3):
        norm = predictor_gradient(masked_softmax, monkeypatch, dtype=torch.float16, seed=seed)
        assert 0 < norm < 1


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    sdtps = make_sdtps(20, 16, use_gumbel=True)
    sdtps(torch.randn(2, 3, 17, 20))[0].pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sdtps.parameters())
    assert isinstance(sdtps.aggregation["TI"], TokenAggregation)
