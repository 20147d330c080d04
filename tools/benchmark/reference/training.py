"""Training and evaluation as in public code, with the modules and losses of this project.

Shapes: B batch, M modality, H x W pixels, N samples, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.model import EncodedTokens, ReIDModel, ReIDOutput

Images = Sequence[Tensor]
"""(B, 3, H, W) for each modality."""


def forward(model: ReIDModel, images: Images, camera: Tensor) -> ReIDOutput:
    """Run the model with one backbone pass for each modality."""
    encoded = [model.encode(one.unsqueeze(1), camera) for one in images]
    return model.decode(EncodedTokens.join(encoded, dim=1))


def make_optimizer(groups: Iterable[dict]) -> torch.optim.Adam:
    """Make a plain Adam with a parameter group for every tensor in `groups`."""
    return torch.optim.Adam(
        [
            {"params": [parameter], "lr": group["lr"], "weight_decay": group["weight_decay"]}
            for group in groups
            for parameter in group["params"]
        ]
    )


class ReferenceTrainer:
    """Trains step by step: in float16 with a scaler on CUDA, in float32 on the CPU, reading the loss in every step.

    Args:
        model: the model, on `device`.
        loss: model output and batch to a dict of losses.
        optimizer: the optimiser of its parameters.
        device: where the steps run.
    """

    def __init__(
        self, model: ReIDModel, loss: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.device = device
        self.half = device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)

    def step(self, images: Images, pid: Tensor, camera: Tensor) -> tuple[float, float]:
        """Make an optimiser step and return the loss and the accuracy of the first head."""
        self.model.train()
        self.optimizer.zero_grad()
        images = [one.to(self.device) for one in images]
        pid, camera = pid.to(self.device), camera.to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=self.half):
            output = forward(self.model, images, camera)
            # The loss reads nothing else of a batch.
            total = sum(self.loss(output, SimpleNamespace(pid=pid)).values())
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        first = next(iter(output.logits.values()))
        return total.item(), (first.argmax(dim=1) == pid).float().mean().item()


@torch.no_grad()
def encode(
    model: ReIDModel, batches: Iterable[tuple[Images, Tensor, Tensor]], descriptor: str, device: torch.device
) -> Tensor:
    """Encode one descriptor of all samples in float32, in a pass of its own: (N, D) of unit length on the CPU."""
    model.eval()
    features = []
    for images, _, camera in batches:
        images = [one.to(device) for one in images]
        features.append(forward(model, images, camera.to(device)).descriptors[descriptor].cpu())
    return F.normalize(torch.cat(features), dim=1)
