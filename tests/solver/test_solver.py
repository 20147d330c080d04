"""Groups and schedule against literal lists."""

import pytest
import torch
from torch import nn

from configs import get_cfg
from solver import build_optimizer, build_schedule
from solver.param_groups import build_param_groups
from solver.schedule import EpochSchedule, lr_factor, lr_noise


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.sdtps = nn.Linear(2, 2)
        self.heads = nn.ModuleDict(
            {"ori": nn.ModuleDict({"neck": nn.BatchNorm1d(2), "classifier": nn.Linear(2, 3, bias=False)})}
        )
        self.heads["ori"]["neck"].bias.requires_grad_(False)


def groups(**options):
    model = Model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {"base_lr": 1.0, "backbone_lr": 0.1, "weight_decay": 0.5, "weight_decay_bias": 0.25, "bias_lr_factor": 2.0}
    built = build_param_groups(model.named_parameters(), **{**rates, **options})
    return {g["name"]: ({names[id(p)] for p in g["params"]}, g["base_lr"], g["weight_decay"]) for g in built}


def test_every_trainable_parameter_is_in_one_group_with_its_rate():
    assert groups() == {
        "backbone": ({"backbone.weight", "backbone.bias"}, 0.1, 0.5),
        "bias": ({"sdtps.bias"}, 2.0, 0.25),
        "classifier": ({"heads.ori.classifier.weight"}, 1.0, 0.5),
        "rest": ({"sdtps.weight", "heads.ori.neck.weight"}, 1.0, 0.5),
    }
    assert groups(large_fc_lr=True)["classifier"][1] == 2.0


def test_factor_is_linear_then_cosine():
    found = [lr_factor(e, warmup_epochs=4, max_epochs=9, warmup_start=0.2, min_factor=0.1) for e in range(9)]
    # 0.2 + 0.8 e/4, then 0.1 + 0.9 (1 + cos(pi k/4)) / 2
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8682, 0.55, 0.2318, 0.1], abs=1e-4)


@pytest.mark.parametrize(("warmup", "epochs", "expected"), [(0, 1, [1.0]), (1, 2, [0.1, 1.0]), (0, 3, [1.0, 0.5, 0.0])])
def test_short_schedules(warmup, epochs, expected):
    found = [
        lr_factor(e, warmup_epochs=warmup, max_epochs=epochs, warmup_start=0.1, min_factor=0) for e in range(epochs)
    ]
    assert found == pytest.approx(expected)


def test_noise_is_bounded_and_a_function_of_seed_and_epoch():
    drawn = [lr_noise(epoch, 1111, 0.67) for epoch in range(200)]
    assert drawn == [lr_noise(epoch, 1111, 0.67) for epoch in range(200)]
    assert max(map(abs, drawn)) < 0.67 < 0.67 + max(map(abs, [lr_noise(e, 1111, 3.0) for e in range(200)]))
    assert drawn[:5] != [lr_noise(epoch, 1112, 0.67) for epoch in range(5)]


def test_schedule_sets_each_group_from_its_own_rate():
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))], "base_lr": rate} for rate in (1.0, 0.1)], lr=9
    )
    EpochSchedule(optimizer, lambda epoch: 0.5**epoch).set_epoch(2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, pytest.approx(0.025)]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_a_called_off_step_changes_nothing(name):
    """`found_inf` = 1 is how a step with a non-finite loss is skipped without waiting for the device."""
    torch.manual_seed(0)
    model = Model()
    optimizer = build_optimizer(get_cfg(None, ["SOLVER.OPTIMIZER_NAME", name]), model)
    for called_off in (0.0, 1.0, 0.0):
        before = [p.detach().clone() for p in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) * (torch.nan if called_off else 1)
        optimizer.found_inf = torch.tensor(called_off)
        optimizer.step()
        unchanged = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True) if b.requires_grad]
        assert all(unchanged) if called_off else not any(unchanged)


def test_built_schedule_follows_the_keys():
    cfg = get_cfg(None, ["SOLVER.MAX_EPOCHS", 3, "SOLVER.WARMUP_EPOCHS", 1, "SOLVER.LR_NOISE", 0.5])
    optimizer = build_optimizer(cfg, Model())
    build_schedule(cfg, optimizer).set_epoch(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-6 * (1 + lr_noise(1, 1111, 0.5)))
