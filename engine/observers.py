"""What can watch a run without taking part in it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.model import ReIDOutput


class Observer(Protocol):
    """Gathers metrics while a model trains; the trainer and the evaluator call it and know nothing else of it."""

    name: str
    """The key of its state in a checkpoint."""

    def after_backward(self, step: int, output: ReIDOutput, present: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Look at a training step between its backward pass and the optimiser; must not wait for the device.

        Args:
            step: number of the step in its epoch, counted from 0.
            output: what the model gave.
            present: (B, M) bool, which modalities the samples of the batch have.
            scaler: holds the factor by which the gradients are scaled.
        """

    def after_evaluation(self, kept: Tensor, present: Tensor) -> dict[str, float]:
        """Metrics of an evaluation for the record's 'selection'.

        Args:
            kept: (N, M, S) int64, the patches kept of every sample of the split.
            present: (N, M) bool.
        """

    def read(self) -> dict[str, dict[str, float]]:
        """Metrics of the steps since the last call, to be merged into the record of the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors with which a resumed run continues as if it had not been interrupted."""

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
