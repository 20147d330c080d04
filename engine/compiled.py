"""torch.compile of the model (SOLVER.COMPILE), which must not be the reason why a run does not start."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as autograd_config

from modeling.model import ReIDOutput

logger = logging.getLogger(__name__)

_AHEAD = "force_non_lazy_backward_lowering"  # not in every torch from 2.4 on
_OPTIONS = {_AHEAD: True} if hasattr(autograd_config, _AHEAD) else {}
"""Compile the backward pass with the forward one: what it fails with is met here, and not in `backward()`."""


class CompiledModel(nn.Module):
    """`model`, compiled at its first call; where it does not compile, the model as it is, with one message."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled = [torch.compile(model)]  # in a list, lest its parameters were registered twice

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled model is what is called."""
        return bool(self._compiled)

    def forward(self, *inputs: Tensor | None) -> ReIDOutput:
        """What the model gives."""
        if self._compiled:
            try:
                with autograd_config.patch(_OPTIONS):
                    return self._compiled[0](*inputs)
            except TorchDynamoException as error:
                reason = " ".join(str(error).split())[:300]
                logger.info("warning: SOLVER.COMPILE: the model does not compile here and runs as it is. %s", reason)
                self._compiled.clear()
        return self.model(*inputs)
