"""Training and evaluation transforms of a whole batch, on whatever device it is on.

Shapes: B batch, M modality, G geometries per sample (1 where the modalities share one, else M), H x W pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ERASE_AREA = (0.02, 1 / 3)
"""Share of the image that random erasing takes; these and the next two are timm's, which the original uses."""
ERASE_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
"""Log of height over width of the rectangle."""
ERASE_TRIES = 10
NOISE_STRIDE = 977
"""Values between the noise of one sample and of the next in the table (see `_noise_like`)."""


def normalize(images: Tensor, present: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale bytes to [0, 1] and normalise per channel; an absent modality becomes 0, the original's empty image.

    Args:
        images: (B, M, 3, H, W) uint8.
        present: (B, M) bool.

    Returns:
        (B, M, 3, H, W) float32.
    """
    scale, shift = _affine(tuple(mean), tuple(std), images.device)
    present = present[..., None, None, None]  # (B, M, 1, 1, 1)
    return images.float().mul_(scale * present).add_(shift * present)


@functools.cache
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + shift, each (3, 1, 1); cached, as a copy to the device waits for it."""
    with torch.inference_mode(False):
        mean_, std_ = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        return (1 / (255 * std_)).float().to(device), (-mean_ / std_).float().to(device)


@dataclass(frozen=True, kw_only=True)
class TrainAugment:
    """Random horizontal flip, black padding and random crop back to size, normalisation, random erasing.

    Random erasing (Zhong et al., arXiv:1708.04896) replaces one rectangle by normal noise, after normalisation.
    """

    flip_prob: float
    pad_pixels: int
    erase_prob: float
    mean: Sequence[float]
    std: Sequence[float]
    sync_geometry: bool
    """True: one flip, crop and rectangle for a sample's modalities, which stay aligned. False: drawn for each."""
    rank: int = 0
    """Which of `num_ranks` equal parts of a batch the images are: that of one of several processes."""
    num_ranks: int = 1
    """Numbers are drawn for the whole batch, so that a sample's do not depend on it."""

    def __call__(self, images: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, M, 3, H, W) uint8 with present (B, M) bool: (B, M, 3, H, W) float32.

        Everything is drawn from `generator`, which is on the images' device. Nothing waits for the device.
        """
        geometries = (self.num_ranks * images.shape[0], 1 if self.sync_geometry else images.shape[1])
        images = self._flip_and_crop(images, geometries, generator)
        images = normalize(images, present, mean=self.mean, std=self.std)
        if self.erase_prob > 0:
            self._erase_(images, present, geometries, generator)
        return images

    def _own(self, share: int) -> slice:
        """The rows of the images, `share` of them, among what was drawn for the whole batch."""
        return slice(self.rank * share, (self.rank + 1) * share)

    def _flip_and_crop(self, images: Tensor, geometries: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Flip, pad with black and crop as two gathers, of rows and then of columns."""
        if self.flip_prob == 0 and self.pad_pixels == 0:
            return images
        device, (batch, modalities, channels, height, width) = images.device, images.shape
        pad = self.pad_pixels
        padded = F.pad(images, (pad, pad, pad, pad))
        padded_height, padded_width = padded.shape[-2:]
        offset = torch.randint(2 * pad + 1, (2, *geometries, 1), generator=generator, device=device)
        flip = torch.rand((*geometries, 1), generator=generator, device=device) < self.flip_prob
        offset, flip = offset[:, self._own(batch)], flip[self._own(batch)]  # (2, B, G, 1), (B, G, 1)

        rows = (offset[0] + torch.arange(height, device=device)).expand(batch, modalities, height)
        planes = torch.arange(batch * modalities * channels, device=device).view(batch, modalities, channels, 1)
        rows = planes * padded_height + rows[:, :, None]  # (B, M, 3, H), counted through the batch
        cropped = padded.reshape(-1, padded_width).index_select(0, rows.flatten())
        cropped = cropped.view(batch, modalities, channels, height, padded_width)

        columns = offset[1] + torch.arange(width, device=device)  # (B, G, W)
        columns = torch.where(flip, padded_width - 1 - columns, columns)
        return cropped.gather(-1, columns[:, :, None, None].expand(images.shape))

    def _erase_(self, images: Tensor, present: Tensor, geometries: tuple[int, int], generator: torch.Generator) -> None:
        """Write noise into a rectangle of each chosen image, in place."""
        own = self._own(len(images))
        erase = torch.rand(geometries, generator=generator, device=images.device) < self.erase_prob
        mask = draw_rectangles(geometries, images.shape[-2:], generator, images.device, rows=own)
        mask = mask & (erase[own] & present)[..., None, None]  # (B, M, H, W)
        noise = _noise_like(images, generator, total=len(erase), start=own.start)
        torch.where(mask[:, :, None], noise, images, out=images)


def draw_rectangles(
    shape: tuple[int, ...],
    size_hw: tuple[int, int],
    generator: torch.Generator,
    device: torch.device,
    *,
    rows: slice = slice(None),
) -> Tensor:
    """Rectangles as masks (*shape, H, W) bool, drawn for all of `shape` and given for `rows` of its first axis.

    Area and log aspect ratio are uniform in ERASE_AREA and ERASE_LOG_ASPECT; of ERASE_TRIES draws the first counts
    that is smaller than the image both ways, at a uniform place; if none is, the mask is empty.
    """
    height, width = size_hw
    area, aspect, top, left = torch.rand((4, *shape, ERASE_TRIES), generator=generator, device=device)[:, rows]
    area = (ERASE_AREA[0] + area * (ERASE_AREA[1] - ERASE_AREA[0])) * (height * width)
    aspect = (ERASE_LOG_ASPECT[0] + aspect * (ERASE_LOG_ASPECT[1] - ERASE_LOG_ASPECT[0])).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.byte().argmax(-1, keepdim=True)  # the first of equals
    tall, wide, top, left, fits = (values.gather(-1, first) for values in (tall, wide, top, left, fits))
    # top is uniform in 0..height - tall; the minimum is for a product that float32 rounds up to the next integer.
    top = torch.minimum((top * (height - tall + 1)).floor(), height - tall)
    left = torch.minimum((left * (width - wide + 1)).floor(), width - wide)
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_y = (y >= top) & (y < top + tall) & fits  # (*shape, H)
    inside_x = (x >= left) & (x < left + wide)  # (*shape, W)
    return inside_y[..., :, None] & inside_x[..., None, :]


def _noise_like(images: Tensor, generator: torch.Generator, *, total: int, start: int) -> Tensor:
    """Standard normal noise as a view of the shape of images (B, M, 3, H, W): samples from `start` on of `total`.

    Drawing B * M * 3 * H * W numbers would take a CPU longer than all the rest of the augmentation, so a modality has
    a table of its own, fresh in each call, which sample i reads from position i * NOISE_STRIDE on. Within an image,
    across the modalities of a sample, and at equal pixels of different samples the values are independent; those of
    two samples repeat each other only displaced, by a multiple of NOISE_STRIDE in the flattened image, which no
    network can profit from.
    """
    _, modalities, channels, height, width = images.shape
    length = (total - 1) * NOISE_STRIDE + channels * height * width
    table = torch.randn((modalities, length), generator=generator, device=images.device)
    strides = (NOISE_STRIDE, length, height * width, width, 1)
    return table.as_strided(images.shape, strides, storage_offset=start * NOISE_STRIDE)
