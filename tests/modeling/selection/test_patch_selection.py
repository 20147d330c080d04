"""The selection of all modalities has the right sizes, values in training and evaluation, and parameters."""

import math

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.selection import TokenInfo
from modeling.selection.aggregations.learned import num_aggregated
from modeling.selection.sparse import num_kept
from tests.helpers.selection import make_sdtps, make_selection


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
    sdtps = make_sdtps(20, patches, sparse_ratio=rho, aggr_ratio=alpha)
    tokens, selection = sdtps(torch.randn(2, 3, 1 + patches, 20))
    assert tokens.shape == (2, 3, aggregated + (rho < 1), 20)  # rho = 1 drops nothing: no extra token
    assert [indices.shape for indices in selection.indices] == [(2, kept)] * 3
    assert [weights.shape for weights in selection.weights] == [(2, aggregated, kept)] * 3


def test_evaluation_is_deterministic_whatever_the_flag():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    plain = make_sdtps(20, 16).eval()
    for sample in (False, True):
        gumbel = make_sdtps(20, 16, use_gumbel=True, gumbel_sample=sample).eval()
        gumbel.load_state_dict(plain.state_dict())
        for _ in range(2):
            torch.testing.assert_close(gumbel(tokens)[0], plain(tokens)[0], atol=0, rtol=0)


def test_training_with_gumbel_has_the_forward_value_of_plain_top_k():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    plain, gumbel = make_sdtps(20, 16), make_sdtps(20, 16, use_gumbel=True)
    gumbel.load_state_dict(plain.state_dict())
    (expected, kept), (masked, kept_gumbel) = plain(tokens), gumbel(tokens)
    torch.testing.assert_close(masked, expected, atol=1e-5, rtol=0)
    for m in range(3):
        assert torch.equal(kept.indices[m], kept_gumbel.indices[m])
        torch.testing.assert_close(kept.weights[m], kept_gumbel.weights[m], atol=1e-5, rtol=0)


def test_gumbel_sampling_changes_which_patches_are_kept_in_training_only():
    torch.manual_seed(0)
    tokens = torch.randn(4, 3, 129, 20)
    sampled = make_sdtps(20, 128, use_gumbel=True, gumbel_sample=True)
    draws = {tuple(sampled(tokens)[1].indices[0][0].sort().values.tolist()) for _ in range(4)}
    assert len(draws) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_finite_and_scores_in_float32(dtype):
    torch.manual_seed(0)
    sdtps = make_sdtps(64, 128, use_gumbel=True)
    tokens = (torch.randn(2, 3, 129, 64) * 30).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out, selection = sdtps(tokens)
    out.float().pow(2).mean().backward()
    assert torch.isfinite(out).all() and torch.isfinite(tokens.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in sdtps.parameters())
    assert {score.dtype for score in selection.score} == {torch.float32}
    torch.testing.assert_close(selection.weights[0].sum(-1), torch.ones(2, 25))


def test_parameter_count_of_the_published_size():
    assert sum(p.numel() for p in make_sdtps(512, 128).parameters()) == 365_157


def test_without_an_aggregation_the_kept_patches_come_out():
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 17, 20)
    found, selection = make_sdtps(20, 16, aggregation="none", sparse_ratio=0.25).eval()(tokens)
    assert found.shape == (2, 3, 4 + 1, 20) and selection.weights is None
    for m in range(3):
        for b in range(2):
            assert torch.equal(found[b, m, :4], tokens[b, m, 1:][selection.indices[m][b]])


@pytest.mark.parametrize("block", [0, 1])
def test_gated_patches_weigh_the_mean_of_the_branch(block):
    opts = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_SCORE", "aligned", "MODEL.SDTPS_AGGREGATION", "none"]
    size = ["INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "MODEL.TRANSFORMER_TYPE", "ViT-Test"]
    cfg = get_cfg(None, [*opts, *size, "MODEL.SDTPS_GATE", True, "MODEL.SDTPS_BLOCK", block])
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=2, num_cameras=1).eval()
    torch.nn.init.normal_(model.selections[0].score.mlp[2].weight, std=3.0)
    seen = {}
    model.selections[0].register_forward_hook(lambda _module, _inputs, output: seen.update(tokens=output[0]))
    model.branches["sdtps"].register_forward_pre_hook(lambda _module, inputs: seen.update(reached=inputs[0][:, :, 1:]))
    with torch.inference_mode():
        output = model(torch.randn(2, 3, 3, 64, 32), torch.zeros(2).long())
    tokens = seen["tokens"] if block == 0 else seen["reached"]
    for b in range(2):
        for m in range(3):
            score = output.selection.score[m][b]
            gates = [2 / (1 + math.exp(-(score[i] - score.mean()).item())) for i in output.selection.indices[m][b]]
            gates.append(1.0)  # the extra token
            mean = sum(gate * token for gate, token in zip(gates, tokens[b, m], strict=True)) / sum(gates)
            torch.testing.assert_close(output.features["sdtps"][b].view(3, -1)[m], mean, rtol=1e-4, atol=1e-5)


def test_the_gate_of_a_later_stage_multiplies_that_of_the_first():
    selection = make_selection(8, 10, score="opencode", aggregation="none", gate=True, sparse_ratio=0.5).eval()
    sizes = torch.rand(2, 3, 10) + 0.5
    tokens = torch.randn(2, 3, 11, 8)
    _, plain = selection(tokens)
    _, scaled = selection(tokens, None, TokenInfo(sizes=sizes))
    for m in range(3):
        before = sizes[:, m].gather(1, plain.indices[m])
        torch.testing.assert_close(scaled.sizes[:, m, :5], plain.sizes[:, m, :5] * before)
        assert torch.equal(scaled.sizes[:, m, 5], torch.ones(2))


def test_what_is_made_of_the_gates_teaches_the_score():
    torch.manual_seed(0)
    options = {"score": "sdtps", "aggregation": "none", "extra_token": False, "sparse_ratio": 0.5}
    selection = make_selection(8, 10, gate=True, **options).train()
    tokens, chosen = selection(torch.randn(2, 3, 11, 8))
    (tokens * chosen.sizes.unsqueeze(-1)).sum(dim=2).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in selection.score.predictor.parameters())
    assert make_selection(8, 10, gate=False, **options)(torch.randn(2, 3, 11, 8))[1].sizes is None
