"""From configuration to optimiser and schedule: the only file of this package that knows the keys."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from solver.param_groups import build_param_groups
from solver.schedule import EpochSchedule, lr_factor, lr_noise


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
    )
    # Fused on the CPU too: one kernel per group, and it honours `found_inf`, with which a step can be called off.
    if solver.OPTIMIZER_NAME == "SGD":
        return torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, fused=True)
    return {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[solver.OPTIMIZER_NAME](
        groups, lr=solver.BASE_LR, fused=True
    )


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> EpochSchedule:
    """Linear warm-up and cosine, set once per epoch, with the original's noise if SOLVER.LR_NOISE asks for it."""
    solver = cfg.SOLVER
    factor = partial(
        lr_factor,
        warmup_epochs=solver.WARMUP_EPOCHS,
        max_epochs=solver.MAX_EPOCHS,
        warmup_start=solver.WARMUP_START,
        min_factor=solver.MIN_LR_FACTOR,
    )
    if not solver.LR_NOISE:
        return EpochSchedule(optimizer, factor)
    return EpochSchedule(optimizer, lambda epoch: factor(epoch) * (1 + lr_noise(epoch, solver.SEED, solver.LR_NOISE)))
