"""The counter finds the multiply-adds that are added up by hand."""

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.complexity import count_complexity
from tests.helpers.backbone import make_backbone


def test_counts_of_a_tiny_vit_by_hand():
    backbone = make_backbone("ViT-Test", img_size=(64, 32))  # 8 patches, width 32, 2 blocks, MLP ratio 4
    layers = 8 * (3 * 16 * 16 * 32) + 2 * 9 * (32 * 96 + 32 * 32 + 2 * 32 * 128)
    attention = 2 * (2 * 9 * 9 * 32)  # Q K^T and A V of 9 tokens, both blocks
    found = count_complexity(backbone, size_hw=(64, 32))
    assert (found.layer_macs, found.attention_macs) == (3 * layers, 3 * attention)
    assert found.trainable_params == found.total_params == sum(p.numel() for p in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("branches", "giga"),
    [
        ([], 33.25),
        (["USE_SDTPS"], 33.29),
        (["GLOBAL_LOCAL"], 33.25),
        (["GLOBAL_LOCAL", "HDM"], 34.07),
        (["GLOBAL_LOCAL", "HDM", "ATM"], 34.07),
    ],
)
def test_published_figures_of_vit_b_16(branches, giga):
    """The 33.25 G leave out the attention's own products: 3 modalities x 12 blocks x 2 x 129^2 x 768 = 0.92 G."""
    opts = [word for key in branches for word in (f"MODEL.{key}", True)]
    model = build_model(get_cfg(None, opts), num_classes=171, num_cameras=4)
    found = count_complexity(model, size_hw=(256, 128))
    assert found.layer_macs / 1e9 == pytest.approx(giga, abs=0.005)
    hdm_macs = 2 * 12 * 129 * 512 if "HDM" in branches else 0  # seven queries over 3 x 1 + 3 x 2 + 3 x 1 modalities
    assert found.attention_macs == 3 * 12 * 2 * 129**2 * 768 + hdm_macs
    assert torch.is_grad_enabled() and model.training


def inside(*opts):
    """Count a sample of three modalities whose 128 patches of width 96 are selected after the first of three blocks."""
    size = ["INPUT.SIZE_TRAIN", [128, 64], "INPUT.SIZE_TEST", [128, 64], "MODEL.TRANSFORMER_TYPE", "ViT-Micro-8"]
    cfg = get_cfg(None, [*size, "MODEL.USE_SDTPS", True, "MODEL.SDTPS_BLOCK", 1, *opts])
    found = count_complexity(build_model(cfg, num_classes=96, num_cameras=4), size_hw=(128, 64))
    return found.layer_macs, found.attention_macs


KEEP = ["MODEL.SDTPS_SPARSE_RATIO", 0.2, "MODEL.SDTPS_AGGREGATION", "none"]
N, L, W, H, KEPT = 128, 129, 96, 3, 26
HEADS = 2 * 3 * W * 96
"""The classifiers of 'ori' and 'sdtps'."""
EMBEDDING = 3 * N * 3 * 8 * 8 * W
EXTRA = N * W
"""The dropped patches are weighted and added to one token."""
BLOCK = 12 * W * W
"""Queries, keys, values and projection, 4 W^2, and an MLP of ratio 4, 8 W^2, for each token of a block."""


def test_blocks_behind_a_selection_see_the_tokens_that_are_left():
    for opts, tokens in (([], 1 + KEPT + 1), (["MODEL.SDTPS_EXTRA_TOKEN", False], 1 + KEPT)):
        layers, attention = inside(*KEEP, *opts, "MODEL.SDTPS_SCORE", "centre")
        extra = 3 * EXTRA if not opts else 0
        assert layers == EMBEDDING + 3 * BLOCK * (L + 2 * tokens) + extra + HEADS
        assert attention == 3 * 2 * W * (L**2 + 2 * tokens**2)


PROJECTION = L * W * W
"""One of queries, keys and values, of all tokens."""
CLASS_ROW = W * W + PROJECTION + L * W
"""The query of the class token, the keys of all, and their products."""
MAPS = 2 * PROJECTION + L * L * W
COSTS = {
    "random": 0,
    "fixed": 0,
    "oracle": 0,
    "anti_oracle": 0,
    "attention": CLASS_ROW,
    "ats": CLASS_ROW + PROJECTION,
    "rollout": MAPS,  # of a single block, so that no maps are multiplied
    "editor": MAPS,
    "signal": 3 * N * W,
    "opencode": 3 * N * W,
    "sdtps": 3 * N * W + N * (W * (W // 4) + W // 4),
    "aligned": (N * (3 * W * 64 + 64) + 3 * N * W) / 3,  # one MLP for all modalities, and the mean of each
}


@pytest.mark.parametrize("score", COSTS)
def test_a_score_costs_what_its_formula_says(score):
    free, _ = inside(*KEEP, "MODEL.SDTPS_SCORE", "centre")
    layers, _ = inside(*KEEP, *([] if score == "sdtps" else ["MODEL.SDTPS_SCORE", score]))
    assert layers - free == 3 * COSTS[score]


def test_products_of_maps_are_counted_from_the_second_block_on():
    opts = ["MODEL.SDTPS_SPARSE_RATIO", 0.2, "MODEL.SDTPS_AGGREGATION", "none", "MODEL.SDTPS_BLOCK", 2]
    free, _ = inside(*opts, "MODEL.SDTPS_SCORE", "centre")
    for score, products in (("rollout", 1), ("editor", H)):
        layers, _ = inside(*opts, "MODEL.SDTPS_SCORE", score)
        assert layers - free == 3 * (2 * MAPS + products * L**3)


def test_merging_leaves_as_many_tokens_as_the_ratio_says():
    """All 128 patches become floor(0.2 x 128) = 25 tokens, in three rounds that compare the keys of all halves."""
    opts = ["MODEL.SDTPS_SPARSE_RATIO", 1.0, "MODEL.SDTPS_AGGR_RATIO", 0.2, "MODEL.SDTPS_AGGREGATION", "merge"]
    layers, attention = inside(*opts, "MODEL.SDTPS_BLOCK", 1)
    assert attention == 3 * 2 * W * (L**2 + 2 * (1 + 25) ** 2)
    width = W // H  # of a key
    rounds = sum(K * N * width + (K // 2) ** 2 * width for K in (128, 64, 32))  # mean keys, and cosines of the halves
    merging = PROJECTION + rounds + 25 * N * W
    assert layers == EMBEDDING + 3 * BLOCK * (L + 2 * (1 + 25)) + HEADS + 3 * (COSTS["sdtps"] + merging)
