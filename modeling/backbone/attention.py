"""The precision of attention under autocast on a CPU.

There the backward pass of torch's fused attention takes two to three times as long in bfloat16 as in float32 (torch
2.11, Xeon with AMX). With SOLVER.AMP bf16 that was 57 % of a training step of ViT-Micro-8, which took 0.69 s; it takes
0.42 s with attention in float32, and 0.58 s with everything in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """While it is active, attention that a gradient will pass through is computed in float32, whatever autocast says.

    It is written for timm's blocks, which pass query, key and value by position and the mask by name.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Torch calls this in the place of every function."""
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or not any(tensor.requires_grad for tensor in args[:3]):
            return func(*args, **kwargs)
        query, key, value = args
        with torch.autocast("cpu", enabled=False):
            return func(query.float(), key.float(), value.float(), **kwargs)


def attention_precision(tokens: Tensor) -> AbstractContextManager:
    """Return the context for a block on these tokens; a compiled model keeps torch's own rule."""
    slow = tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return Float32Attention() if slow else nullcontext()
