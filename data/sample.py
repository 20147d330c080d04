"""A `Sample` holds paths but no pixels; a `Batch` holds the pixels that travel to the model."""

from __future__ import annotations

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
    """Names a grey image that is 255 on the object, if the data set has one; the model never sees it."""

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

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`; the copy is asynchronous when the tensors are pinned."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; the DataLoader calls this, so that `to` can be asynchronous."""
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def __len__(self) -> int:
        return len(self.pid)
