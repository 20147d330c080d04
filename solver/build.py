"""From configuration to optimiser and schedule: the only file of this package that knows the keys."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from solver.param_groups import build_param_groups
from solver.schedule import EpochSchedule, lr_factor, lr_noise, original_lr


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Fused Adam, AdamW or SGD over a few parameter groups, each with a 'name'."""
    solver = cfg.SOLVER
    groups = build_param_groups(
        model.named_parameters(),
        base_lr=solver.BASE_LR,
        backbone_lr=solver.BACKBONE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        large_fc_lr=solver.LARGE_FC_LR,
        **(_layers(model) | {"layer_decay": solver.LAYER_DECAY} if solver.LAYER_DECAY != 1 else {}),
    )
    # Fused on the CPU too: one kernel per group, and it honours `found_inf`, with which a step can be called off.
    if solver.OPTIMIZER_NAME == "SGD":
        optimizer = torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, fused=True)
        if solver.MOMENTUM:
            _start_at_rest(optimizer)
        return optimizer
    return {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[solver.OPTIMIZER_NAME](
        groups, lr=solver.BASE_LR, fused=True
    )


def _start_at_rest(optimizer: torch.optim.SGD) -> None:
    """Set all momenta to 0, from which a first step makes what it makes of none.

    Fused SGD would make them of uninitialised memory and leave them so if its first step is called off, which with a
    gradient scaler is the rule.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _layers(model: nn.Module) -> dict[str, Any]:
    """How `build_param_groups` is told the layer of a backbone parameter."""
    backbone = model.backbone
    return {
        "layer_of": lambda name: backbone.layer_of(name.removeprefix("backbone.")),
        "num_layers": backbone.num_blocks + 1,
    }


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> EpochSchedule:
    """The rate of every epoch, set once per epoch, with the original's noise if SOLVER.LR_NOISE asks for it."""
    solver = cfg.SOLVER
    length = {"warmup_epochs": solver.WARMUP_EPOCHS, "max_epochs": solver.MAX_EPOCHS}

    def noise(epoch: int) -> float:
        return 1 + lr_noise(epoch, solver.SEED, solver.LR_NOISE) if solver.LR_NOISE else 1.0

    if solver.SCHEDULE == "original":
        lowest = {"warmup_lr": solver.WARMUP_START * solver.BASE_LR, "min_lr": solver.MIN_LR_FACTOR * solver.BASE_LR}
        rate = partial(original_lr, **length, **lowest)
        # The original counts its epochs from 1.
        return EpochSchedule(optimizer, lambda epoch: noise(epoch + 1), rate=lambda epoch, lr: rate(epoch + 1, lr))
    factor = partial(lr_factor, **length, warmup_start=solver.WARMUP_START, min_factor=solver.MIN_LR_FACTOR)
    return EpochSchedule(optimizer, lambda epoch: factor(epoch) * noise(epoch))
