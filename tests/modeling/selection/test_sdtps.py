"""Selection and aggregation against the formulas of SEPS eq. 1-4, worked independently."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling.selection.sdtps import (
    SDTPS,
    TokenAggregation,
    TokenSparse,
    attention_scores,
    masked_softmax,
    num_aggregated,
    num_kept,
)


def make_inputs(batch=2, patches=12, dim=20, others=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, patches, dim, generator=generator),
        torch.randn(batch, dim, generator=generator),
        torch.randn(batch, others, dim, generator=generator),
    )


@pytest.mark.parametrize(
    ("patches", "rho", "alpha", "kept", "aggregated"),
    [
        (128, 0.5, 0.4, 64, 25),
        (196, 0.5, 0.4, 98, 39),
        (100, 0.29, 1.0, 29, 29),  # 100 x 0.29 is 28.999999999999996
        (100, 0.07, 1.0, 7, 7),  # 100 x 0.07 is 7.000000000000001
        (7, 0.33, 0.5, 3, 1),  # ceil(2.31), floor(1.155)
        (5, 0.01, 0.01, 1, 1),  # never none
        (128, 1.0, 0.4, 128, 51),
    ],
)
def test_sizes(patches, rho, alpha, kept, aggregated):
    assert num_kept(patches, rho) == kept
    assert num_aggregated(patches, rho, alpha) == aggregated
    sdtps = SDTPS(20, patches, sparse_ratio=rho, aggr_ratio=alpha)
    tokens, selection = sdtps(torch.randn(2, 3, 1 + patches, 20))
    assert tokens.shape == (2, 3, aggregated + (rho < 1), 20)  # rho = 1 drops nothing: no extra token
    assert [indices.shape for indices in selection.indices] == [(2, kept)] * 3
    assert [weights.shape for weights in selection.weights] == [(2, aggregated, kept)] * 3


def test_score_by_hand():
    """Two-dimensional patches whose cosines are known: east, north-east, north."""
    diagonal = math.sqrt(0.5)
    patches = torch.tensor([[[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]]])
    own, others = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    s_im = torch.tensor([1.0, diagonal, 0.0])  # cosines with east: 1, 0.707, 0, already spanning [0, 1]
    s_m2 = torch.tensor([0.0, diagonal, 1.0])  # with north
    s_m3 = torch.tensor([0.0, 1.0, 0.0])  # with north-east: 0.707, 1, 0.707, scaled
    sparse = TokenSparse(2, beta=0.2, use_predictor=True)
    sparse.score_predictor = torch.nn.Linear(2, 1)
    with torch.no_grad():
        sparse.score_predictor.weight.copy_(torch.tensor([[0.5, -0.25]]))
        sparse.score_predictor.bias.fill_(0.1)
    s_p = torch.tensor([1.1, 0.35, -0.65]).sigmoid()
    expected = 0.6 * s_p + 0.2 * (s_m2 + s_m3 + 2 * s_im)
    torch.testing.assert_close(sparse(patches, own, others).score[0], expected)

    open_code = TokenSparse(2, use_predictor=False)
    torch.testing.assert_close(open_code(patches, own, others).score[0], s_im + s_m2 + s_m3)


def test_zeros_and_constant_rows_score_zero():
    patches = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    scores = attention_scores(patches, torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[[0.0, 0.0, 0.0], [0.5, 1.0, 0.0]]]))
    assert not attention_scores(torch.ones(1, 4, 2), torch.randn(1, 1, 2)).any()


def test_no_gradient_through_detached_attention():
    for detach in (True, False):
        patches, own, others = make_inputs()
        own.requires_grad_()
        others.requires_grad_()
        score = TokenSparse(20, detach_attention=detach)(patches, own, others).score
        score[:, 0].sum().backward()
        assert (own.grad is None and others.grad is None) == detach
        if not detach:
            assert own.grad.abs().sum() > 0 and others.grad.abs().sum() > 0


def test_keeps_the_best_and_folds_the_rest_into_the_extra_token():
    patches, own, others = make_inputs()
    sparse = TokenSparse(20, sparse_ratio=0.4).eval()
    out = sparse(patches, own, others)
    assert out.kept.shape == (2, 5, 20)
    for b in range(2):
        best = sorted(range(12), key=lambda i: -out.score[b, i].item())
        assert out.indices[b].tolist() == best[:5]
        assert out.decision[b].tolist() == [float(i in best[:5]) for i in range(12)]
        torch.testing.assert_close(out.kept[b], patches[b, best[:5]])
        weights = torch.softmax(out.score[b, best[5:]], 0)
        torch.testing.assert_close(out.extra[b, 0], weights @ patches[b, best[5:]])


def test_equal_scores_go_by_patch_index():
    sparse = TokenSparse(4, sparse_ratio=0.5, use_predictor=False)
    out = sparse(torch.ones(1, 200, 4), torch.ones(1, 4), torch.ones(1, 2, 4))
    assert out.indices[0].tolist() == list(range(100))


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


def test_aggregation_by_hand():
    """Eq. 4 with its parts written out."""
    torch.manual_seed(0)
    aggregation, tokens = TokenAggregation(20, 3), torch.randn(1, 6, 20)
    norm, first, _, second = aggregation.mlp
    assert first.out_features == 4  # int(0.2 C)
    hidden = F.gelu(F.linear(F.layer_norm(tokens[0], (20,), norm.weight, norm.bias), first.weight, first.bias))
    logits = aggregation.scale * F.linear(hidden, second.weight, second.bias).T  # (3, 6)
    expected = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True) @ tokens[0]
    torch.testing.assert_close(aggregation(tokens)[0][0], expected)


def test_masked_softmax_survives_dropped_logits_that_tower_over_the_kept():
    logits = torch.tensor([[[0.0, 1.0, 500.0]]], requires_grad=True)
    mask = torch.tensor([[[1.0, 1.0, 0.0]]], requires_grad=True)
    weights = masked_softmax(logits, mask)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1 / (1 + math.e), math.e / (1 + math.e), 0.0]))
    weights[..., 0].sum().backward()
    assert torch.isfinite(logits.grad).all() and torch.isfinite(mask.grad).all()


def test_evaluation_is_deterministic_whatever_the_flag():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    plain = SDTPS(20, 16).eval()
    for sample in (False, True):
        gumbel = SDTPS(20, 16, use_gumbel=True, gumbel_sample=sample).eval()
        gumbel.load_state_dict(plain.state_dict())
        for _ in range(2):
            torch.testing.assert_close(gumbel(tokens)[0], plain(tokens)[0], atol=0, rtol=0)


def test_training_with_gumbel_has_the_forward_value_of_plain_top_k():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    plain, gumbel = SDTPS(20, 16), SDTPS(20, 16, use_gumbel=True)
    gumbel.load_state_dict(plain.state_dict())
    (expected, kept), (masked, kept_gumbel) = plain(tokens), gumbel(tokens)
    torch.testing.assert_close(masked, expected, atol=1e-5, rtol=0)
    for m in range(3):
        assert torch.equal(kept.indices[m], kept_gumbel.indices[m])
        torch.testing.assert_close(kept.weights[m], kept_gumbel.weights[m], atol=1e-5, rtol=0)


def test_gumbel_sampling_changes_which_patches_are_kept_in_training_only():
    torch.manual_seed(0)
    tokens = torch.randn(4, 3, 129, 20)
    sampled = SDTPS(20, 128, use_gumbel=True, gumbel_sample=True)
    draws = {tuple(sampled(tokens)[1].indices[0][0].sort().values.tolist()) for _ in range(4)}
    assert len(draws) == 4


def test_each_modality_is_scored_with_its_own_and_the_others_globals():
    """Changing TI's global alone changes the scores of all three; changing TI's patches alone those of TI only."""
    torch.manual_seed(0)
    sdtps, tokens = SDTPS(20, 16).eval(), torch.randn(2, 3, 17, 20)
    before = sdtps(tokens)[1].score
    for place, changed in ((0, [True, True, True]), (5, [False, False, True])):
        other = tokens.clone()
        other[:, 2, place] += 1.0
        after = sdtps(other)[1].score
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == changed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_finite_and_scores_in_float32(dtype):
    torch.manual_seed(0)
    sdtps = SDTPS(64, 128, use_gumbel=True)
    tokens = (torch.randn(2, 3, 129, 64) * 30).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out, selection = sdtps(tokens)
    out.float().pow(2).mean().backward()
    assert torch.isfinite(out).all() and torch.isfinite(tokens.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in sdtps.parameters())
    assert {score.dtype for score in selection.score} == {torch.float32}
    torch.testing.assert_close(selection.weights[0].sum(-1), torch.ones(2, 25))


def test_parameter_count_of_the_published_size():
    assert sum(p.numel() for p in SDTPS(512, 128).parameters()) == 365_157
