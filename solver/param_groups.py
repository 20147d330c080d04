"""Give every trainable parameter its learning rate and decay, by ordered rules and in few groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

SIE = "backbone.sie_embed"


def build_param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    base_lr: float,
    backbone_lr: float,
    weight_decay: float,
    weight_decay_bias: float,
    bias_lr_factor: float,
    large_fc_lr: bool,
    layer_decay: float,
    layer_of: Callable[[str], int] | None = None,
    num_layers: int = 0,
) -> list[dict[str, Any]]:
    """Build the optimiser's groups, each with 'name', 'params', 'base_lr', 'lr' and 'weight_decay'.

    The backbone learns at `backbone_lr`, biases included. Its camera embedding is in no pretrained weights and uses the
    learning rate of new layers. Outside the backbone, biases have `bias_lr_factor` x `base_lr` and their own decay, and
    `large_fc_lr` doubles the rate of the classifiers. Frozen parameters are in no group, and no group is empty.

    Args:
        named_parameters: those of the model; the backbone's names begin with 'backbone.'.
        layer_decay: below 1, each layer of the backbone is a group 'backbone_<layer>' that learns at `backbone_lr` x
            `layer_decay` ** (`num_layers` - layer), as BEiT is fine-tuned (arXiv:2106.08254).
        layer_of: gives the layer of a backbone parameter by its name, from 0 (the embeddings) to `num_layers`, which
            learns at `backbone_lr` itself; needed only if `layer_decay` is not 1.
        num_layers: the number of the last layer.

    Raises:
        ValueError: `layer_of` is missing, or gives a layer outside 0 to `num_layers`.
    """
    if layer_decay != 1.0 and layer_of is None:
        raise ValueError(f"layer_decay is {layer_decay}: layer_of must give the layer of a parameter")

    if layer_decay == 1.0:
        hyper = {"backbone": (backbone_lr, weight_decay)}
    else:
        rates = [backbone_lr * layer_decay ** (num_layers - layer) for layer in range(num_layers + 1)]
        hyper = {f"backbone_{layer}": (rate, weight_decay) for layer, rate in enumerate(rates)}
    hyper |= {
        "bias": (base_lr * bias_lr_factor, weight_decay_bias),
        "classifier": (base_lr * (2 if large_fc_lr else 1), weight_decay),
        "rest": (base_lr, weight_decay),
    }
    groups = {
        name: {"name": name, "params": [], "base_lr": lr, "lr": lr, "weight_decay": decay}
        for name, (lr, decay) in hyper.items()
    }

    def group_of(name: str) -> str:
        """Return the group of the first rule that the parameter's name matches."""
        if name.startswith("backbone.") and name != SIE:
            return "backbone" if layer_decay == 1.0 else f"backbone_{layer_of(name)}"
        if name.endswith("bias"):
            return "bias"
        return "classifier" if ".classifier." in name else "rest"

    for name, parameter in named_parameters:
        if parameter.requires_grad:
            group = group_of(name)
            if group not in groups:
                raise ValueError(f"layer_of({name!r}) is {layer_of(name)}, outside 0 to {num_layers}")
            groups[group]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
