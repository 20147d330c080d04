"""A `Sample` holds paths but no pixels; a `Batch` holds the pixels that travel to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

MODALITIES = ("RGB", "NI", "TI")  # Visible, near infrared, thermal infrared: every axis called M runs in this order.


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample is one object seen once by up to three aligned cameras. Making one reads no pixel."""

    paths: tuple[Path | None, ...]
    """Names one image file per modality, in the order of MODALITIES; None where the modality is absent."""
    pid: int
    """The file names give this identity; training labels are made from the sorted set of these."""
    camera: int
    """The camera is counted from 0."""
    scene: int = 0
    """The scene or session matters only where the data set's protocol uses it."""
    tiled: bool = False
    """Says whether the paths name one file that holds the three images side by side (RGBNT100)."""
    mask: Path | None = None
    """Names a grey image that is 255 on the object, if the data set has one; no batch has it unless asked to."""

    @property
    def name(self) -> str:
        """Return the file name that stands for the sample in messages and result files."""
        return next(path for path in self.paths if path is not None).name


@dataclass(slots=True)
class Batch:
    """A batch leaves the loader in this form, with pixels still as bytes."""

    images: Tensor
    """(B, M, 3, H, W) uint8."""
    present: Tensor
    """(B, M) bool; False where a modality is absent, whose pixels are then 0."""
    pid: Tensor
    """(B,) int64; the training label 0..K-1 in training, the identity in evaluation."""
    camera: Tensor
    """(B,) int64."""
    index: Tensor
    """(B,) int64; position in the data set's sample list."""
    mask: Tensor | None = None
    """(B, H, W) uint8, 255 on the object; None unless it was asked for."""

    @property
    def masks(self) -> Tensor | None:
        """Return the mask once for each modality, (B, M, H, W) uint8, because the modalities are aligned."""
        return None if self.mask is None else self.mask.unsqueeze(1).expand(-1, self.images.shape[1], -1, -1)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`; the copy is asynchronous when the tensors are pinned."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; the DataLoader calls this, so that `to` can be asynchronous."""
        return self.apply(Tensor.pin_memory)

    def apply(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch of the changed tensors; a mask that is not there stays None."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{name: None if tensor is None else change(tensor) for name, tensor in tensors.items()})

    def __len__(self) -> int:
        return len(self.pid)
