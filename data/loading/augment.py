"""Transform a whole batch for training or evaluation, on whatever device it is on.

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

# Random erasing uses timm's numbers, as the original does.
ERASE_AREA = (0.02, 1 / 3)  # share of the image
ERASE_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))  # log of height over width
ERASE_TRIES = 10
NOISE_STRIDE = 977  # The noise of consecutive samples starts this far apart in the table (`draw_noise`).


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
    """Return scale and shift, each (3, 1, 1), so that x * scale + shift is (x / 255 - mean) / std.

    They are cached because a copy to the device makes the host wait.
    """
    with torch.inference_mode(False):
        mean_, std_ = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        return (1 / (255 * std_)).float().to(device), (-mean_ / std_).float().to(device)


@dataclass(frozen=True, kw_only=True)
class TrainAugment:
    """Flip at random, pad with black and crop back to size at random, normalise, and erase at random.

    Random erasing (Zhong et al., arXiv:1708.04896) replaces one rectangle with normal noise, after normalisation.

    Several processes share a batch equally. Each draws the numbers of the whole batch and uses its own part, so
    that a sample's numbers do not depend on how many processes there are.
    """

    flip_prob: float
    pad_pixels: int
    erase_prob: float
    mean: Sequence[float]
    std: Sequence[float]
    sync_geometry: bool
    """If True, the modalities of a sample share one flip, crop and rectangle and stay aligned; else each has one."""
    modality_dropout: float
    """A modality of a sample is made absent with this probability (`drop_modalities`)."""
    process_rank: int
    num_processes: int

    def __call__(self, images: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, M, 3, H, W) uint8 with present (B, M) bool to (B, M, 3, H, W) float32.

        Everything is drawn from `generator`, which is on the images' device. Nothing waits for the device.
        """
        return self.with_mask(images, None, present, generator)[0]

    def with_mask(
        self, images: Tensor, mask: Tensor | None, present: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Augment as `__call__` does, and move the mask of the object with the images of each modality.

        The same numbers are drawn with a mask and without.

        Args:
            images: (B, M, 3, H, W) uint8.
            mask: (B, H, W) uint8, 0 off the object; or None.
            present: (B, M) bool.
            generator: is on the images' device.

        Returns:
            The images (B, M, 3, H, W) float32, and the mask (B, M, H, W) uint8 or None. The mask is 0 on the padding
            and inside the rectangle that was erased, where the object is not visible. An absent modality has a mask
            as well, which is moved but not erased.
        """
        channels = images.shape[2]
        if mask is not None:  # as one more channel it takes every step that moves pixels
            images = torch.cat([images, mask[:, None, None].expand(-1, images.shape[1], -1, -1, -1)], dim=2)
        geometries = (self.num_processes * len(images), 1 if self.sync_geometry else images.shape[1])  # (B of all, G)
        if self.flip_prob > 0 or self.pad_pixels > 0:
            images = self._flip_and_crop(images, geometries, generator)
        if mask is not None:
            images, mask = images[:, :, :channels], images[:, :, channels]
        images = normalize(images, present, mean=self.mean, std=self.std)
        if self.erase_prob > 0:
            images, mask = self._erase(images, mask, present, geometries, generator)
        return images, mask

    def drop_modalities(self, present: Tensor, generator: torch.Generator) -> Tensor:
        """Make modalities absent at random, but never all of a sample; take and return present (B, M) bool."""
        if self.modality_dropout == 0:
            return present
        shape = (self.num_processes * len(present), present.shape[1])
        draws = self._own(torch.rand(shape, generator=generator, device=present.device))
        remaining = present & (draws >= self.modality_dropout)
        return torch.where(remaining.any(dim=1, keepdim=True), remaining, present)

    def _own(self, drawn: Tensor) -> Tensor:
        """Return this process's part (B, ...) of what was drawn for all processes."""
        return drawn.chunk(self.num_processes)[self.process_rank]

    def _flip_and_crop(self, images: Tensor, geometries: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Flip, pad with black and crop by gathering first rows and then columns."""
        device, (batch, modalities, channels, height, width) = images.device, images.shape
        pad = self.pad_pixels
        top, left = torch.randint(2 * pad + 1, (2, *geometries, 1), generator=generator, device=device)
        flip = torch.rand((*geometries, 1), generator=generator, device=device) < self.flip_prob
        top, left, flip = self._own(top), self._own(left), self._own(flip)  # (B, G, 1)

        padded = F.pad(images, (pad, pad, pad, pad))
        padded_height, padded_width = padded.shape[-2:]
        rows = (top + torch.arange(height, device=device)).expand(batch, modalities, height)
        planes = torch.arange(batch * modalities * channels, device=device).view(batch, modalities, channels, 1)
        rows = planes * padded_height + rows[:, :, None]  # (B, M, channels, H), numbered through the batch
        cropped = padded.reshape(-1, padded_width).index_select(0, rows.flatten())
        cropped = cropped.view(batch, modalities, channels, height, padded_width)

        columns = left + torch.arange(width, device=device)  # (B, G, W)
        columns = torch.where(flip, padded_width - 1 - columns, columns)
        return cropped.gather(-1, columns[:, :, None, None].expand(images.shape))

    def _erase(
        self,
        images: Tensor,
        mask: Tensor | None,
        present: Tensor,
        geometries: tuple[int, int],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        """Replace a rectangle in some of the images that are present with standard normal noise, and a mask with 0."""
        erase = torch.rand(geometries, generator=generator, device=images.device) < self.erase_prob
        boxes = draw_boxes(geometries, images.shape[-2:], generator, images.device)
        noise = draw_noise((len(erase), *images.shape[1:]), generator, images.device)
        chosen = self._own(erase) & present  # (B, M)
        erased = as_masks(self._own(boxes), images.shape[-2:]) & chosen[..., None, None]  # (B, M, H, W)
        images = torch.where(erased[:, :, None], self._own(noise), images)
        return images, None if mask is None else mask.masked_fill(erased, 0)


def draw_boxes(
    shape: tuple[int, ...], size_hw: tuple[int, int], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw rectangles as top, left, height and width: (*shape, 4) whole numbers in float32.

    Area and log aspect ratio are uniform in ERASE_AREA and ERASE_LOG_ASPECT. The first of ERASE_TRIES draws that is
    smaller than the image in both directions is put at a uniform position; if none is, the height is 0.
    """
    height, width = size_hw
    area, aspect, top, left = torch.rand((4, *shape, ERASE_TRIES), generator=generator, device=device)
    area = (ERASE_AREA[0] + area * (ERASE_AREA[1] - ERASE_AREA[0])) * (height * width)
    aspect = (ERASE_LOG_ASPECT[0] + aspect * (ERASE_LOG_ASPECT[1] - ERASE_LOG_ASPECT[0])).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.byte().argmax(-1, keepdim=True)  # argmax returns the first maximum
    tall, wide, top, left, fits = (values.gather(-1, first) for values in (tall, wide, top, left, fits))
    # top is uniform in 0..height - tall; the minimum catches a product that float32 rounds up to the next integer.
    top = torch.minimum((top * (height - tall + 1)).floor(), height - tall)
    left = torch.minimum((left * (width - wide + 1)).floor(), width - wide)
    return torch.cat([top, left, tall * fits, wide], dim=-1)


def as_masks(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return boxes (..., 4) as masks (..., H, W) bool."""
    y, x = (torch.arange(size, device=boxes.device) for size in size_hw)
    top, left, tall, wide = boxes.unsqueeze(-1).unbind(-2)  # (..., 1)
    inside_y, inside_x = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return inside_y[..., :, None] & inside_x[..., None, :]


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard normal noise of the shape (B, M, 3, H, W).

    Drawing a normal number for every value of a batch would make a step of configs/Synthetic/DeMo_SDTPS.yml, if it
    erased, about 5 % longer on two CPU cores. So each call draws one table per modality, which sample i reads from
    position i * NOISE_STRIDE on. Values are independent within an image, between the modalities of a sample, and at
    equal pixels of different samples; the noise of one sample equals that of another only when it is shifted by a
    multiple of NOISE_STRIDE in the flattened image.
    """
    batch, modalities, channels, height, width = shape
    length = (batch - 1) * NOISE_STRIDE + channels * height * width
    table = torch.randn((modalities, length), generator=generator, device=device)
    return table.as_strided(shape, (NOISE_STRIDE, length, height * width, width, 1))
