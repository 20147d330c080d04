"""The counter against multiply-adds added up by hand."""

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.backbone import ViTBackbone
from modeling.complexity import count_complexity


def test_counts_of_a_tiny_vit_by_hand():
    backbone = ViTBackbone("ViT-Test", img_size=(64, 32))  # 8 patches, width 32, 2 blocks, MLP ratio 4
    layers = 8 * (3 * 16 * 16 * 32) + 2 * 9 * (32 * 96 + 32 * 32 + 2 * 32 * 128)
    attention = 2 * (2 * 9 * 9 * 32)  # Q K^T and A V of 9 tokens, both blocks
    found = count_complexity(backbone, size_hw=(64, 32))
    assert (found.layer_macs, found.attention_macs) == (3 * layers, 3 * attention)
    assert found.trainable_params == found.total_params == sum(p.numel() for p in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("sdtps", "giga"), [(False, 33.25), (True, 33.29)])
def test_published_figures_of_vit_b_16(sdtps, giga):
    """33.25 G leaves the attention's own products out: 3 modalities x 12 blocks x 2 x 129^2 x 768 = 0.92 G."""
    model = build_model(get_cfg(None, ["MODEL.USE_SDTPS", sdtps]), num_classes=171, num_cameras=4)
    found = count_complexity(model, size_hw=(256, 128))
    assert found.layer_macs / 1e9 == pytest.approx(giga, abs=0.005)
    assert found.attention_macs == 3 * 12 * 2 * 129**2 * 768
    assert torch.is_grad_enabled() and model.training
