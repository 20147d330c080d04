"""Images the peers' way: every JPEG opened, resized and augmented anew in each epoch, collated sample by sample.

Shapes: B batch, M modality, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from data.loading.augment import TrainAugment
from data.sample import Sample

Item = tuple[list[Tensor], int, int]


def train_transform(size_hw: tuple[int, int], augment: TrainAugment) -> T.Compose:
    """The settings of our batched augmentation as a chain of transforms of one image."""
    return T.Compose(
        [
            T.Resize(size_hw, T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(augment.flip_prob),
            T.Pad(augment.pad_pixels),
            T.RandomCrop(size_hw),
            T.ToTensor(),
            T.Normalize(augment.mean, augment.std),
            RandomErasing(augment.erase_prob, mode="pixel", max_count=1, device="cpu"),
        ]
    )


def eval_transform(size_hw: tuple[int, int], augment: TrainAugment) -> T.Compose:
    """Resized and normalised as in training."""
    return T.Compose(
        [
            T.Resize(size_hw, T.InterpolationMode.BICUBIC),
            T.ToTensor(),
            T.Normalize(augment.mean, augment.std),
        ]
    )


class JpegDataset(Dataset):
    """One sample at a time: three images opened and transformed.

    Args:
        samples: with all their modalities.
        labels: (N,) what is learned of each.
        transform: of an image.
    """

    def __init__(self, samples: Sequence[Sample], labels: Sequence[int], transform: T.Compose) -> None:
        self.samples = samples
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        images = [self.transform(Image.open(path).convert("RGB")) for path in sample.paths]
        return images, int(self.labels[index]), sample.camera


def collate(items: list[Item]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Images (B, 3, H, W) of each modality, labels (B,) and cameras (B,)."""
    images, labels, cameras = zip(*items, strict=True)
    return [torch.stack(of_modality) for of_modality in zip(*images, strict=True)], *map(
        torch.tensor, (labels, cameras)
    )


def make_loader(dataset: JpegDataset, batches: Iterable[list[int]], *, workers: int, pin_memory: bool) -> DataLoader:
    """Batches in the order of a batch sampler."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
