"""Which parameter gets which learning rate and decay: ordered rules, few groups, every parameter covered once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def build_param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    base_lr: float,
    backbone_lr: float,
    weight_decay: float,
    weight_decay_bias: float,
    bias_lr_factor: float = 1.0,
    large_fc_lr: bool = False,
) -> list[dict[str, Any]]:
    """Optimizer groups, each with 'name', 'params', 'base_lr', 'lr' and 'weight_decay'.

    The backbone has its own rate, biases included; outside it biases have `bias_lr_factor` x `base_lr` and their own decay,
    and `large_fc_lr` doubles the rate of the classifiers. Frozen parameters are in no group.
    """
    # The first name whose test holds takes the parameter.
    rules = (
        ("backbone", lambda name: name.startswith("backbone."), backbone_lr, weight_decay),
        ("bias", lambda name: name.endswith("bias"), base_lr * bias_lr_factor, weight_decay_bias),
        ("classifier", lambda name: ".classifier." in name, base_lr * (2 if large_fc_lr else 1), weight_decay),
        ("rest", lambda _: True, base_lr, weight_decay),
    )
    groups = {
        name: {"name": name, "params": [], "base_lr": lr, "lr": lr, "weight_decay": decay} for name, _, lr, decay in rules
    }
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            group = next(rule for rule, holds, *_ in rules if holds(name))
            groups[group]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
