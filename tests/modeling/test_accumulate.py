"""SOLVER.ACCUMULATE and MODEL.GRAD_CHECKPOINTING save memory and leave the gradient as it is."""

import weakref

import pytest
import torch

from configs import get_cfg
from modeling import build_loss, build_model
from modeling.model import EncodedTokens
from tests.helpers.batches import labelled

SIZE = ["INPUT.SIZE_TRAIN", "[64, 32]", "INPUT.SIZE_TEST", "[64, 32]"]
TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCE", 2, *SIZE]
BATCH = 8


def make(*opts):
    cfg = get_cfg(opts=[*map(str, [*TINY, *opts])])
    torch.manual_seed(0)
    return build_model(cfg, num_classes=4, num_cameras=2).train(), build_loss(cfg)


def step(model, loss, *, seed=5, dtype=None):
    """Take one step with a triplet loss, whose pairs cross the parts; return losses and gradients by name."""
    torch.manual_seed(1)
    images, camera = torch.randn(BATCH, 3, 3, 64, 32), torch.arange(BATCH) % 2
    pid = torch.arange(BATCH) // 2
    torch.manual_seed(seed)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        output = model(images, camera)
        losses = loss(output, labelled(pid))
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {name: value.detach() for name, value in losses.items()}, gradients


def assert_equal(actual, expected, **tolerance):
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_give_the_losses_and_gradients_of_the_whole_batch(parts):
    """The sums run in another order in float32: gradients are of the order of 1e-2, their rounding of 1e-8."""
    whole, in_parts = (
        step(*make("MODEL.USE_SDTPS", True)),
        step(*make("MODEL.USE_SDTPS", True, "SOLVER.ACCUMULATE", parts)),
    )
    assert_equal(in_parts, whole, rtol=1e-4, atol=1e-6)


def test_parts_run_again_with_the_random_numbers_they_had():
    opts = ["MODEL.DROP_PATH", 0.5, "SOLVER.ACCUMULATE", 4]
    model, loss = make(*opts)
    replayed = step(model, loss)
    encode = model.backbone
    model._encode_in_parts = lambda images, camera: EncodedTokens(
        torch.cat([encode(*part) for part in zip(images.chunk(4), camera.chunk(4), strict=True)]), {}
    )
    kept = step(model, loss)
    assert_equal(replayed, kept, rtol=0, atol=0)
    other = step(model, loss, seed=6)[1]
    assert any(not torch.equal(other[name], kept[1][name]) for name in other), "drop path was on"


def test_the_activations_of_one_part_live_at_a_time():
    model, loss = make("SOLVER.ACCUMULATE", 4)
    activations, alive_at_start = [], []
    model.backbone.register_forward_pre_hook(
        lambda *_: alive_at_start.append(sum(reference() is not None for reference in activations))
    )
    model.backbone.vit.blocks[0].mlp.fc1.register_forward_hook(  # its output is kept for the backward pass of GELU
        lambda _module, _inputs, output: activations.append(weakref.ref(output))
    )
    step(model, loss)
    assert len(activations) == 8, "each part runs twice"
    assert alive_at_start == [0] * 8


def test_autocast_sums_the_gradients_of_the_parts_in_float32():
    """The parts give a weight bf16 gradients, but their sum has digits that bf16 cannot hold."""
    _, whole = step(*make(), dtype=torch.bfloat16)
    _, in_parts = step(*make("SOLVER.ACCUMULATE", 4), dtype=torch.bfloat16)
    name = "backbone.vit.blocks.0.mlp.fc1.weight"
    assert torch.equal(whole[name], whole[name].bfloat16().float())
    assert not torch.equal(in_parts[name], in_parts[name].bfloat16().float())
    error = (in_parts[name] - whole[name]).norm() / whole[name].norm()
    assert error < 0.05


def test_evaluation_takes_the_batch_whole():
    model, _ = make("SOLVER.ACCUMULATE", 4)
    calls = []
    model.backbone.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    with torch.inference_mode():
        model.eval()(torch.randn(BATCH, 3, 3, 64, 32), torch.zeros(BATCH, dtype=torch.int64))
    assert calls == [BATCH]


@pytest.mark.parametrize("parts", [1, 2])
def test_checkpointed_blocks_give_the_same_gradients(parts):
    """The gradients are bit-equal, drop path included, because it is the same computation twice."""
    opts = ["MODEL.DROP_PATH", 0.5, "SOLVER.ACCUMULATE", parts]
    (model, loss), (checkpointed, _) = make(*opts), make(*opts, "MODEL.GRAD_CHECKPOINTING", True)
    calls = []
    checkpointed.backbone.vit.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    assert_equal(step(checkpointed, loss), step(model, loss), rtol=0, atol=0)
    assert len(calls) > parts, "blocks are computed again"
