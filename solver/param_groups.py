"""Which parameter gets which learning rate and decay: ordered rules, few groups, every parameter covered once."""

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
    bias_lr_factor: float = 1.0,
    large_fc_lr: bool = False,
    layer_decay: float = 1.0,
    layer_of: Callable[[str], int] | None = None,
    num_layers: int = 0,
) -> list[dict[str, Any]]:
    """Optimizer groups, each with 'name', 'params', 'base_lr', 'lr' and 'weight_decay'.

    The backbone has its own rate, biases included, but for its camera embedding, which no pretrained weights hold and
    which learns as what is new; outside it biases have `bias_lr_factor` x `base_lr` and their own
    decay, and `large_fc_lr` doubles the rate of the classifiers. Frozen parameters are in no group, and no group is
    empty.

    Args:
        named_parameters: of the model; the backbone's names begin with 'backbone.'.
        layer_decay: below 1, the backbone's layers learn at `backbone_lr` x `layer_decay` ** (`num_layers` - layer), a
            group 'backbone_<layer>' each (as BEiT is fine-tuned, arXiv:2106.08254).
        layer_of: name of a backbone parameter to its layer, 0 (the embeddings) to `num_layers` (what learns at
            `backbone_lr` itself); read only when `layer_decay` is not 1.

    Raises:
        ValueError: `layer_of` is missing, or gives a layer outside 0 to `num_layers`.
    """
    if layer_decay != 1.0 and layer_of is None:
        raise ValueError(f"layer_decay is {layer_decay}: layer_of must tell the layer of a parameter")

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
        """The first rule that holds takes the parameter."""
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
