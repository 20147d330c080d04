"""Merging equals ToMe's words, followed token by token, and a merged token counts as the patches that it stands for."""

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.selection import TokenInfo
from modeling.selection.aggregations.merge import MergeAggregation
from modeling.selection.types import KeptInfo
from tests.helpers.selection import make_selection


def merge_by_hand(tokens, keys, sizes, count):
    """Merge the tokens of one image, given in the order of the image, until `count` are left; all are lists."""
    groups = [[i] for i in range(len(tokens))]

    def mean(group, values):
        return sum(sizes[i] * values[i] for i in group) / sum(sizes[i] for i in group)

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    while len(groups) > count:
        first, second = groups[::2], groups[1::2]
        ties = []
        for i, group in enumerate(first):
            alike = [cosine(mean(group, keys), mean(other, keys)) for other in second]
            best = max(range(len(second)), key=lambda j, alike=alike: alike[j])
            ties.append((alike[best], i, best))
        merged = min(len(groups) - count, len(groups) // 2)
        ties = sorted(ties, key=lambda tie: -tie[0])[:merged]
        for _, i, j in ties:
            second[j] = second[j] + first[i]
        gone = {i for _, i, _ in ties}
        groups = [group for i, group in enumerate(first) if i not in gone] + second
    return [(sorted(group), mean(group, tokens)) for group in groups]


@pytest.mark.parametrize("count", [11, 8, 6, 3, 2, 1])
def test_merging_follows_the_words_of_the_paper(count):
    """The kept patches come best first; the split in two halves is alternate in the order of the image."""
    torch.manual_seed(0)
    places = torch.stack([torch.randperm(20)[:12] for _ in range(24)])
    tokens, keys, sizes = torch.randn(24, 12, 5), torch.randn(24, 12, 4), torch.randint(1, 30, (24, 12)).float()
    merged, weights = MergeAggregation(5, count)(tokens, kept=KeptInfo(places, keys, sizes))
    assert merged.shape == (24, count, 5) and weights.shape == (24, count, 12)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(24, count))
    for b in range(24):
        order = places[b].argsort()
        wanted = merge_by_hand(tokens[b, order].double(), keys[b, order].double(), sizes[b, order].tolist(), count)
        found = {tuple(order.argsort()[weights[b, t] > 0].sort().values.tolist()): merged[b, t] for t in range(count)}
        assert found.keys() == {tuple(group) for group, _ in wanted}
        for group, token in wanted:
            torch.testing.assert_close(found[tuple(group)].double(), token, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_sizes_account_for_every_patch(ratio):
    torch.manual_seed(0)
    options = {"score": "sdtps", "aggregation": "merge", "sparse_ratio": ratio, "aggr_ratio": 0.5}
    selection = make_selection(5, 16, **options)
    info = TokenInfo(recorded={"keys": torch.randn(2, 3, 16, 4)})
    outputs, chosen = selection(torch.randn(2, 3, 17, 5), None, info)
    assert outputs.shape[2] == selection.num_outputs == chosen.sizes.shape[2]
    assert (chosen.sizes.sum(dim=-1) == 16).all(), "the extra token stands for those that were dropped"
    assert ratio == 1 or (chosen.sizes[..., -1] == 8).all()
    without = make_selection(5, 16, extra_token=False, **options)
    assert (without(torch.randn(2, 3, 17, 5), None, info)[1].sizes.sum(dim=-1) == 16 * ratio).all()


def test_a_later_stage_adds_up_the_sizes_of_the_tokens_before():
    """Of 8 tokens that stand for 1 to 8 patches four are kept, and two come out, with the extra token."""
    torch.manual_seed(0)
    selection = make_selection(5, 8, score="random", aggregation="merge", sparse_ratio=0.5, aggr_ratio=0.5).eval()
    tokens, keys = torch.randn(2, 3, 9, 5), torch.randn(2, 3, 8, 4)
    sizes = torch.stack([torch.stack([torch.randperm(8) + 1.0 for _ in range(3)]) for _ in range(2)])
    outputs, chosen = selection(tokens, None, TokenInfo(recorded={"keys": keys}, sizes=sizes))
    for b in range(2):
        for m in range(3):
            kept = chosen.indices[m][b].sort().values
            rows = tokens[b, m, 1:][kept].double(), keys[b, m][kept].double(), sizes[b, m][kept].tolist()
            wanted = {sum(rows[2][i] for i in group): token for group, token in merge_by_hand(*rows, 2)}
            *found, extra = chosen.sizes[b, m].tolist()
            assert extra == 36 - sizes[b, m][kept].sum() and sorted(found) == sorted(wanted)
            for t, size in enumerate(found):
                torch.testing.assert_close(outputs[b, m, t].double(), wanted[size], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_neither_what_is_merged_nor_the_sizes(dtype):
    """600 patches of which most merge to one: bfloat16 has whole numbers to 256 only, and few digits for cosines."""
    torch.manual_seed(0)
    selection = make_selection(4, 600, score="sdtps", aggregation="merge", sparse_ratio=1.0, aggr_ratio=0.003)
    tokens, info = torch.randn(1, 3, 601, 4), TokenInfo(recorded={"keys": torch.randn(1, 3, 600, 3)})
    with torch.inference_mode():
        plain = selection(tokens, None, info)[1]
        with torch.autocast("cpu", dtype):
            cast = selection(tokens, None, info)[1]
    assert cast.sizes.dtype == torch.float32 and torch.equal(cast.sizes, plain.sizes)
    assert all(torch.equal(a > 0, b > 0) for a, b in zip(cast.weights, plain.weights, strict=True))


def test_merging_trains_under_autocast():
    """The bias of attention must not come in a type that attention in float32 refuses."""
    opts = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGREGATION", "merge", "MODEL.SDTPS_BLOCK", 1]
    opts += ["MODEL.SDTPS_SPARSE_RATIO", 1.0, "MODEL.TRANSFORMER_TYPE", "ViT-Test"]
    size = ["INPUT.SIZE_TRAIN", [64, 64], "INPUT.SIZE_TEST", [64, 64]]
    model = build_model(get_cfg(None, [*opts, *size]), num_classes=2, num_cameras=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(2, 3, 3, 64, 64), torch.zeros(2).long())
    output.features["sdtps"].float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters() if p.grad is not None)


def test_a_merged_token_gets_the_attention_of_its_patches():
    """A block gives the class token the same with s equal patches as with one of size s and the log-size bias."""
    torch.manual_seed(0)
    cfg = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
    backbone = build_model(get_cfg(None, cfg), num_classes=2, num_cameras=1).eval().backbone
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    class_token, patches, sizes = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 3, 32), torch.tensor([[[1.0, 4.0, 2.0]]])
    copies = patches.repeat_interleave(sizes[0, 0].long(), dim=2)
    with torch.inference_mode():
        whole = backbone.run_blocks(torch.cat([class_token, copies], dim=2).flatten(0, 1))
        bias = backbone.size_bias(sizes)
        merged = backbone.run_blocks(torch.cat([class_token, patches], dim=2).flatten(0, 1), bias=bias)
    torch.testing.assert_close(merged[:, 0], whole[:, 0], rtol=1e-4, atol=1e-5)
    unbiased = backbone.run_blocks(torch.cat([class_token, patches], dim=2).flatten(0, 1))
    assert not torch.allclose(unbiased[:, 0], whole[:, 0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("block", [0, 1, [1, 2]])
def test_the_feature_is_the_mean_over_patches(block):
    torch.manual_seed(0)
    opts = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGREGATION", "merge", "MODEL.SDTPS_BLOCK", block]
    size = ["INPUT.SIZE_TRAIN", [128, 64], "INPUT.SIZE_TEST", [128, 64], "MODEL.TRANSFORMER_TYPE", "ViT-Micro-8"]
    model = build_model(get_cfg(None, [*opts, *size]), num_classes=2, num_cameras=1).eval()
    seen = {}
    branch = model.branches["sdtps"]
    last = model.selections[-1]
    last.register_forward_hook(lambda _module, _inputs, output: seen.update(tokens=output[0], sizes=output[1].sizes))
    branch.register_forward_pre_hook(lambda _module, inputs: seen.update(reached=inputs[0][:, :, 1:]))
    with torch.inference_mode():
        feature = model(torch.randn(2, 3, 3, 128, 64), torch.zeros(2).long()).features["sdtps"]
    tokens, sizes = seen["tokens"] if block == 0 else seen["reached"], seen["sizes"]
    mean = (tokens * sizes.unsqueeze(-1)).sum(dim=2) / 128
    torch.testing.assert_close(feature, mean.flatten(1))
    assert (sizes.sum(dim=-1) == 128).all() and (sizes > 1).any(), "a later stage adds up the sizes of the first"


def test_gradient_reaches_every_patch_that_is_kept():
    tokens = torch.randn(1, 8, 4, requires_grad=True)
    kept = KeptInfo(torch.arange(8)[None], torch.randn(1, 8, 4), torch.ones(1, 8))
    MergeAggregation(4, 3)(tokens, kept=kept)[0].sum().backward()
    assert (tokens.grad != 0).all()
