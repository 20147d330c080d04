"""Build optimiser and schedule from the configuration, which no other file of this package reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from solver.param_groups import build_param_groups
from solver.schedule import EpochSchedule, lr_factor, lr_noise, original_lr

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the fused optimiser that SOLVER.OPTIMIZER_NAME names over a few parameter groups, each with a 'name'."""
    solver = cfg.SOLVER
    groups = build_param_groups(
        model.named_parameters(),
        base_lr=solver.BASE_LR,
        backbone_lr=solver.BACKBONE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        large_fc_lr=solver.LARGE_FC_LR,
        layer_decay=solver.LAYER_DECAY,
        **(_backbone_layers(model) if solver.LAYER_DECAY != 1 else {}),
    )
    options = {"momentum": solver.MOMENTUM} if solver.OPTIMIZER_NAME == "SGD" else {}
    # Fused on the CPU as well: it is one kernel per group, and it skips its step where `found_inf` is 1.
    optimizer = OPTIMIZERS[solver.OPTIMIZER_NAME](groups, lr=solver.BASE_LR, fused=True, **options)
    if options.get("momentum"):
        _zero_momenta(optimizer)
    return optimizer


def _zero_momenta(optimizer: torch.optim.SGD) -> None:
    """Set all momenta to 0, which is equivalent to an uninitialised first step.

    Fused SGD would allocate them uninitialised and leave them so if its first step is skipped, which is usual with a
    gradient scaler.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _backbone_layers(model: nn.Module) -> dict[str, Any]:
    """Return the arguments by which `build_param_groups` finds the layer of a backbone parameter."""
    backbone = model.backbone
    return {
        "layer_of": lambda name: backbone.layer_of(name.removeprefix("backbone.")),
        "num_layers": backbone.num_blocks + 1,
    }


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> EpochSchedule:
    """Build the schedule that SOLVER.SCHEDULE names, with the original's noise if SOLVER.LR_NOISE asks for it."""
    solver = cfg.SOLVER

    def noise(epoch: int) -> float:
        return 1 + lr_noise(epoch, solver.SEED, solver.LR_NOISE) if solver.LR_NOISE else 1.0

    return SCHEDULES[solver.SCHEDULE](solver, optimizer, noise)


def _cosine(solver: CfgNode, optimizer: torch.optim.Optimizer, noise: Callable[[int], float]) -> EpochSchedule:
    factor = partial(
        lr_factor,
        warmup_epochs=solver.WARMUP_EPOCHS,
        max_epochs=solver.MAX_EPOCHS,
        warmup_start=solver.WARMUP_START,
        min_factor=solver.MIN_LR_FACTOR,
    )
    return EpochSchedule(optimizer, lambda epoch: factor(epoch) * noise(epoch))


def _original(solver: CfgNode, optimizer: torch.optim.Optimizer, noise: Callable[[int], float]) -> EpochSchedule:
    rate = partial(
        original_lr,
        warmup_epochs=solver.WARMUP_EPOCHS,
        max_epochs=solver.MAX_EPOCHS,
        warmup_lr=solver.WARMUP_START * solver.BASE_LR,
        min_lr=solver.MIN_LR_FACTOR * solver.BASE_LR,
    )
    # The original counts its epochs from 1.
    return EpochSchedule(optimizer, lambda epoch: noise(epoch + 1), rate=lambda epoch, lr: rate(epoch + 1, lr))


SCHEDULES = {"cosine": _cosine, "original": _original}
