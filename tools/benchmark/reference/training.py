"""Training and evaluation the peers' way, with this project's own modules and losses inside.

Shapes: B batch, M modality, H x W pixels, N samples, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.model import ReIDModel, ReIDOutput

Images = Sequence[Tensor]
"""(B, 3, H, W) of each modality."""


def forward(model: ReIDModel, images: Images, camera: Tensor) -> ReIDOutput:
    """The model with a backbone pass for each modality."""
    tokens = [model.encode(of_modality.unsqueeze(1), camera) for of_modality in images]
    return model.decode(torch.cat(tokens, dim=1))


def make_optimizer(groups: Iterable[dict]) -> torch.optim.Adam:
    """Plain Adam, with a parameter group for every tensor of `groups`."""
    return torch.optim.Adam(
        [
            {"params": [parameter], "lr": group["lr"], "weight_decay": group["weight_decay"]}
            for group in groups
            for parameter in group["params"]
        ]
    )


class PeersTrainer:
    """One step at a time: fp16 with a scaler on CUDA, float32 on the CPU, loss and accuracy read in every step.

    Args:
        model: on its device.
        loss: (features, logits, pid) to a dict of losses.
        optimizer: over its parameters.
        device: where the model is.
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
        """An optimiser step; the loss and the share of identities that the first head recognises."""
        self.model.train()
        self.optimizer.zero_grad()
        images = [of_modality.to(self.device) for of_modality in images]
        pid, camera = pid.to(self.device), camera.to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=self.half):
            output = forward(self.model, images, camera)
            total = sum(self.loss(output.features, output.logits, pid).values())
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        first = next(iter(output.logits.values()))
        return total.item(), (first.argmax(dim=1) == pid).float().mean().item()


@torch.no_grad()
def encode(
    model: ReIDModel, batches: Iterable[tuple[Images, Tensor, Tensor]], descriptor: str, device: torch.device
) -> Tensor:
    """One feature descriptor of all samples, (N, D) of unit length on the CPU: a whole pass in float32 for each."""
    model.eval()
    features = []
    for images, _, camera in batches:
        images = [of_modality.to(device) for of_modality in images]
        features.append(forward(model, images, camera.to(device)).descriptors[descriptor].cpu())
    return F.normalize(torch.cat(features), dim=1)
