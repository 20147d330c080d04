"""Count parameters and multiply-adds of a model with torch's own counter, which sees matrix products only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from data.sample import MODALITIES
from modeling.model import ReIDModel

ATTENTION_OPS = "scaled_dot_product"


@dataclass(frozen=True)
class Complexity:
    """Size of a model, and its cost for one sample in evaluation."""

    trainable_params: int
    total_params: int
    layer_macs: int
    """Multiply-adds of linear and convolution layers and of explicit matrix products, which is what torch's counter
    finds on the CPU and what the field compares."""
    attention_macs: int
    """Multiply-adds of the fused attention (Q K^T and A V), which `layer_macs` leaves out."""

    def as_dict(self) -> dict[str, int]:
        """Return the fields as results.json holds them."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.trainable_params / 1e6:.2f} M trainable parameters, {self.layer_macs / 1e9:.2f} G multiply-adds "
            f"in layers + {self.attention_macs / 1e9:.2f} G in attention"
        )


def count_complexity(model: nn.Module, *, size_hw: tuple[int, int]) -> Complexity:
    """Count while `model`, on the CPU and in evaluation mode, processes one sample of `size_hw` (height, width)."""
    was_training = model.training
    model.eval()
    inputs = _one_sample(model, size_hw)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=_cpu_attention()) as counter:
        model(*inputs)
    model.train(was_training)
    flops = counter.get_flop_counts()["Global"]
    attention = sum(count for op, count in flops.items() if ATTENTION_OPS in str(op))
    return Complexity(
        trainable_params=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_params=sum(p.numel() for p in model.parameters()),
        layer_macs=(sum(flops.values()) - attention) // 2,  # a multiply-add is two operations
        attention_macs=attention // 2,
    )


def _one_sample(model: nn.Module, size_hw: tuple[int, int]) -> tuple[Any, ...]:
    """Return the inputs of a model, or of a backbone by itself, for one black sample whose object is nowhere."""
    images = torch.zeros(1, len(MODALITIES), 3, *size_hw)
    camera = torch.zeros(1, dtype=torch.int64)
    if not isinstance(model, ReIDModel):
        return images, camera
    mask = images[:, :, 0].byte() if "coverage" in model.needs else None
    return images, camera, None, model.describe(torch.zeros(1, dtype=torch.int64), mask)


def _cpu_attention() -> dict[Any, Callable[..., int]]:
    """Teach torch's counter the fused attention of the CPU, which it does not know."""

    def count(query_shape, key_shape, value_shape, *_args, **_kwargs) -> int:
        return sdpa_flop(query_shape, key_shape, value_shape)

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: count}
