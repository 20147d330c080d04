"""Optimiser and schedule follow the keys; their parts have tests of their own."""

import pytest
import torch
from torch import nn

from configs import get_cfg
from modeling import build_model
from solver import build_optimizer, build_schedule
from solver.schedule import lr_noise


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.sdtps = nn.Linear(2, 2)
        self.heads = nn.ModuleDict(
            {"ori": nn.ModuleDict({"neck": nn.BatchNorm1d(2), "classifier": nn.Linear(2, 3, bias=False)})}
        )
        self.heads["ori"]["neck"].bias.requires_grad_(False)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_a_skipped_step_changes_nothing(name):
    """`found_inf` = 1 is how a step with a non-finite loss is skipped without waiting for the device."""
    torch.manual_seed(0)
    model = Model()
    optimizer = build_optimizer(get_cfg(None, ["SOLVER.OPTIMIZER_NAME", name]), model)
    for skipped in (0.0, 1.0, 0.0):
        before = [p.detach().clone() for p in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) * (torch.nan if skipped else 1)
        optimizer.found_inf = torch.tensor(skipped)
        optimizer.step()
        unchanged = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True) if b.requires_grad]
        assert all(unchanged) if skipped else not any(unchanged)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_a_skipped_first_step_leaves_no_trace(name):
    """With fp16 the first steps are skipped until the scale fits; fused SGD would keep uninitialised momenta."""
    stepped = []
    torch.use_deterministic_algorithms(True)  # uninitialised memory is then nan
    try:
        for steps in ((1.0, 0.0), (0.0,)):
            torch.manual_seed(0)
            model = Model()
            optimizer = build_optimizer(get_cfg(None, ["SOLVER.OPTIMIZER_NAME", name]), model)
            for skipped in steps:
                for parameter in model.parameters():
                    parameter.grad = torch.ones_like(parameter)
                optimizer.found_inf = torch.tensor(skipped)
                optimizer.step()
            momenta = [state["momentum_buffer"] for state in optimizer.state.values() if name == "SGD"]
            stepped.append([*model.state_dict().values(), *momenta])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*stepped, strict=True))


def test_the_schedule_follows_the_keys():
    cfg = get_cfg(None, ["SOLVER.MAX_EPOCHS", 3, "SOLVER.WARMUP_EPOCHS", 1, "SOLVER.LR_NOISE", 0.5])
    optimizer = build_optimizer(cfg, Model())
    build_schedule(cfg, optimizer).set_epoch(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-6 * (1 + lr_noise(1, 1111, 0.5)))


def test_the_original_schedule_warms_every_group_up_from_one_rate():
    keys = ["SOLVER.SCHEDULE", "original", "SOLVER.MAX_EPOCHS", 50, "SOLVER.WARMUP_EPOCHS", 10]
    cfg = get_cfg(None, keys)
    optimizer = build_optimizer(cfg, Model())
    schedule = build_schedule(cfg, optimizer)
    # Its epochs count from 1: the first is a tenth of the way from 3.5e-5 to the group's rate, the fifth half of it.
    for epoch, share in ((0, 0.1), (4, 0.5)):
        schedule.set_epoch(epoch)
        expected = [3.5e-5 + share * (group["base_lr"] - 3.5e-5) for group in optimizer.param_groups]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
    assert optimizer.param_groups[0]["base_lr"] == 5e-6


TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]


def test_layer_decay_gives_each_layer_of_the_backbone_its_rate():
    cfg = get_cfg(None, [*TINY, "SOLVER.LAYER_DECAY", 0.5, "SOLVER.BACKBONE_LR", 0.8, "MODEL.SIE_CAMERA", True])
    model = build_model(cfg, num_classes=3, num_cameras=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in build_optimizer(cfg, model).param_groups:
        found |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
    # The embeddings learn at 0.8 / 8, the two blocks at 0.8 / 4 and 0.8 / 2, and what comes after at 0.8.
    assert found["backbone.vit.patch_embed.proj.weight"] == found["backbone.vit.pos_embed"] == pytest.approx(0.1)
    assert found["backbone.vit.blocks.0.attn.qkv.weight"] == pytest.approx(0.2)
    assert found["backbone.vit.blocks.1.mlp.fc2.bias"] == pytest.approx(0.4)
    assert found["backbone.vit.norm.weight"] == pytest.approx(0.8)
    assert found["backbone.sie_embed"] == pytest.approx(3.5e-4), "it is new, and learns as the heads do"


@pytest.mark.parametrize(
    ("opts", "trained"),
    [
        (["MODEL.FROZEN", True], set()),
        (["MODEL.FROZEN", True, "MODEL.SIE_CAMERA", True], {"sie_embed"}),
        (["MODEL.FREEZE_BLOCKS", 1], {"vit.blocks.1", "vit.norm"}),
        (["MODEL.FREEZE_BLOCKS", 2, "MODEL.SIE_CAMERA", True], {"vit.norm", "sie_embed"}),
    ],
)
def test_frozen_parts_of_the_backbone_are_in_no_group(opts, trained):
    cfg = get_cfg(None, [*TINY, *opts])
    model = build_model(cfg, num_classes=3, num_cameras=2)
    names = {id(parameter): name for name, parameter in model.backbone.named_parameters()}
    groups = build_optimizer(cfg, model).param_groups
    found = {names[id(p)] for group in groups for p in group["params"] if id(p) in names}
    assert all(name.startswith(tuple(trained)) for name in found) if trained else not found
    assert all(any(name.startswith(part) for name in found) for part in trained)
