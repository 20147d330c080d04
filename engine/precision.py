"""The device, and the type that mixed precision computes in on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from utils import distributed
from utils.errors import UserError


@dataclass(frozen=True, slots=True)
class Precision:
    """A device and its autocast type; None computes in float32."""

    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> torch.autocast:
        """Return a context for the forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def make_scaler(self) -> torch.amp.GradScaler:
        """Return a gradient scaler, which does nothing unless the type is float16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def resolve_precision(mode: str, device: torch.device) -> Precision:
    """Resolve SOLVER.AMP: 'auto' is off on the CPU, bf16 on a GPU that computes in it, and fp16 on others."""
    if mode == "auto":
        mode = "off" if device.type == "cpu" else ("bf16" if torch.cuda.is_bf16_supported(False) else "fp16")
    return Precision(device, {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[mode])


def resolve_device(name: str) -> torch.device:
    """Resolve MODEL.DEVICE: 'auto' is CUDA if there is a GPU. Each of several processes gets its own GPU.

    A GPU that is chosen by number becomes the current one, which streams, events and pinned memory belong to.

    Raises:
        UserError: a CUDA device was asked for that does not exist, or one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and distributed.is_active():
        return _local_gpu(device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"MODEL.DEVICE is {name!r}, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Set it to 'auto' or 'cpu', or install a torch built for the GPU's driver."
        )
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def _local_gpu(device: torch.device) -> torch.device:
    """Make this process's GPU the current one and return it."""
    gpus, processes = torch.cuda.device_count(), distributed.local_world_size()
    if device.index is not None or processes > gpus:
        raise UserError(
            f"MODEL.DEVICE is {str(device)!r}, but {processes} processes were started on this machine, each of which "
            f"needs its own GPU; torch sees {gpus}. Start at most that many processes (torchrun --nproc_per_node) "
            "with MODEL.DEVICE: auto, or set it to 'cpu'."
        )
    device = torch.device("cuda", distributed.local_rank())
    torch.cuda.set_device(device)
    return device
