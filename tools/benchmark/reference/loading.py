"""Images as in public code: every JPEG is opened, resized and augmented again in each epoch, sample by sample.

Shapes: B batch, M modality, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms as T

from data.loading.augment import TrainAugment
from data.sample import Sample

Item = tuple[list[Tensor], int, int]


def train_transform(size_hw: tuple[int, int], augment: TrainAugment) -> T.Compose:
    """Make a chain of transforms of one image with the settings of our batched augmentation."""
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
    """Make the transform that resizes and normalises as training does."""
    return T.Compose(
        [
            T.Resize(size_hw, T.InterpolationMode.BICUBIC),
            T.ToTensor(),
            T.Normalize(augment.mean, augment.std),
        ]
    )


class JpegDataset(Dataset):
    """Opens and transforms the three images of one sample at a time.

    Args:
        samples: the samples, each with all modalities.
        labels: (N,) training labels.
        transform: applied to each image.
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
