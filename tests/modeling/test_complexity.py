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
