"""Under autocast on a CPU attention is computed in float32 where a gradient passes, and only there."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.backbone.attention import attention_precision
from tests.helpers.backbone import make_backbone

IMAGES, CAMERA = torch.randn(2, 3, 3, 64, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=int)


class Watch(TorchDispatchMode):
    """Collect the types in which attention is computed, forward and backward."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_in_bfloat16_computes_attention_in_float32(checkpointing):
    torch.manual_seed(0)
    backbone = make_backbone("ViT-Test", img_size=(64, 32), grad_checkpointing=checkpointing).train()

    with Watch() as watch:
        with torch.autocast("cpu", torch.bfloat16):
            tokens = backbone(IMAGES, CAMERA)
        tokens.float().square().sum().backward()
    times = 3 if checkpointing else 2  # forward, once more, backward
    assert watch.dtypes == [torch.float32] * times * backbone.num_blocks


def test_inference_computes_it_in_bfloat16():
    backbone = make_backbone("ViT-Test", img_size=(64, 32)).eval()
    with Watch() as watch, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone(IMAGES, CAMERA)
    assert watch.dtypes == [torch.bfloat16] * 2


def test_frozen_blocks_stay_in_bfloat16():
    backbone = make_backbone("ViT-Test", img_size=(64, 32)).train()
    backbone.freeze(2)  # embeddings and the first of two blocks
    with Watch() as watch, torch.autocast("cpu", torch.bfloat16):
        backbone(IMAGES, CAMERA)
    assert watch.dtypes == [torch.bfloat16, torch.float32]


def test_without_autocast_and_on_a_card_nothing_is_changed():
    assert isinstance(attention_precision(IMAGES), nullcontext)
    with torch.autocast("cpu", torch.bfloat16):
        assert not isinstance(attention_precision(IMAGES), nullcontext)
        assert isinstance(attention_precision(torch.empty(1, device="meta")), nullcontext)


def test_gradients_are_nearer_to_those_of_float32_than_plain_autocast():
    """It is not only faster: the gradients of the weights lose no precision."""
    torch.manual_seed(0)
    backbone = make_backbone("ViT-Test", img_size=(64, 32)).train()
    weights = list(backbone.vit.blocks.parameters())

    def gradients(autocast, block):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            tokens, _ = backbone.embed(IMAGES, CAMERA)
            for module in backbone.vit.blocks:
                tokens = block(module, tokens)
        found = torch.autograd.grad(tokens.float().square().sum(), weights)
        return torch.cat([gradient.flatten() for gradient in found])

    def ours(block, tokens):
        with attention_precision(tokens):
            return block(tokens)

    exact = gradients(False, lambda block, tokens: block(tokens))
    plain, mixed = gradients(True, lambda block, tokens: block(tokens)), gradients(True, ours)
    error = [(found - exact).norm() / exact.norm() for found in (plain, mixed)]
    assert error[1] < 0.05 and error[1] < 1.2 * error[0]
