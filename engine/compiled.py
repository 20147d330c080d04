"""torch.compile of the model (SOLVER.COMPILE), falling back to eager execution if the compilation fails."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as autograd_config

from modeling.model import ReIDOutput

logger = logging.getLogger(__name__)

# The backward pass is compiled together with the forward pass, so that its failures surface here and not in
# `backward()`. Not every torch from 2.4 on has the option.
_AHEAD = "force_non_lazy_backward_lowering"
_OPTIONS = {_AHEAD: True} if hasattr(autograd_config, _AHEAD) else {}


class CompiledModel(nn.Module):
    """`model`, compiled at its first call; if it does not compile, it runs uncompiled after one warning."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled = [torch.compile(model)]  # in a list, so that its parameters are not registered twice

    @property
    def is_compiled(self) -> bool:
        """Whether calls still go to the compiled model."""
        return bool(self._compiled)

    def forward(self, *inputs: Tensor | None) -> ReIDOutput:
        """Return the output of the model."""
        if self._compiled:
            try:
                with autograd_config.patch(_OPTIONS):
                    return self._compiled[0](*inputs)
            except TorchDynamoException as error:
                reason = " ".join(str(error).split())[:300]
                logger.info("warning: SOLVER.COMPILE: the model does not compile here and runs uncompiled. %s", reason)
                self._compiled.clear()
        return self.model(*inputs)
