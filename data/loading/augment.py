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

CPU_VALUES = 2**19
"""Values that a CPU normalises at a time: as floats they fit its cache."""


def normalize(images: Tensor, present: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale bytes to [0, 1] and normalise per channel; an absent modality becomes 0, the original's empty image.

    Args:
        images: (B, M, 3, H, W) uint8.
        present: (B, M) bool.

    Returns:
        (B, M, 3, H, W) float32.
    """
    return _normalize_(images.float(), present, mean, std)


def _normalize_(images: Tensor, present: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`normalize` of bytes that are floats already, in place."""
    scale, shift = _affine(tuple(mean), tuple(std), images.device)
    present = present[..., None, None, None]  # (B, M, 1, 1, 1)
    return images.mul_(scale * present).add_(shift * present)


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
    modality_dropout: float = 0.0
    """Probability that a modality of a sample is made absent (`drop_modalities`)."""
    rank: int = 0
    """Which of `num_ranks` equal parts of a batch the images are: that of one of several processes."""
    num_ranks: int = 1
    """Numbers are drawn for the whole batch, so that a sample's do not depend on it."""

    def __call__(self, images: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, M, 3, H, W) uint8 with present (B, M) bool: (B, M, 3, H, W) float32.

        Everything is drawn from `generator`, which is on the images' device. Nothing waits for the device.
        """
        share = len(images)
        own = slice(self.rank * share, (self.rank + 1) * share)
        geometries = (self.num_ranks * share, 1 if self.sync_geometry else images.shape[1])  # (B of all, G)
        crops = self._draw_crops(geometries, generator, images.device, own)
        erased = self._draw_erased(images, present, geometries, generator, own)
        if not _on_host(images):
            result = (self._crop(images, *crops) if crops else images).float()
            _normalize_(result, present, self.mean, self.std)
            if erased:
                chosen, boxes, noise = erased
                mask = _as_masks(boxes, images.shape[-2:]) & chosen[..., None, None]  # (B, M, H, W)
                torch.where(mask[:, :, None], noise, result, out=result)
            return result

        result = torch.empty(images.shape)
        step = max(1, CPU_VALUES // images[:1].numel())
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            if crops:
                self._crop_on_host(images[rows], result[rows], *(drawn[rows] for drawn in crops))
            else:
                result[rows] = images[rows]
            _normalize_(result[rows], present[rows], self.mean, self.std)
            if erased:
                _erase_on_host(result[rows], *(drawn[rows] for drawn in erased))
        return result

    def drop_modalities(self, present: Tensor, generator: torch.Generator) -> Tensor:
        """Make modalities absent at random: present (B, M) bool to what is left of it; a sample never loses all."""
        if self.modality_dropout == 0:
            return present
        draws = torch.rand((self.num_ranks, *present.shape), generator=generator, device=present.device)
        left = present & (draws[self.rank] >= self.modality_dropout)
        return torch.where(left.any(dim=1, keepdim=True), left, present)

    def _draw_crops(
        self, geometries: tuple[int, int], generator: torch.Generator, device: torch.device, own: slice
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """First row, first column and flip of each crop, (B, G, 1) each; None where nothing moves."""
        if self.flip_prob == 0 and self.pad_pixels == 0:
            return None
        top, left = torch.randint(2 * self.pad_pixels + 1, (2, *geometries, 1), generator=generator, device=device)
        flip = torch.rand((*geometries, 1), generator=generator, device=device) < self.flip_prob
        return top[own], left[own], flip[own]

    def _crop(self, images: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Flip, pad with black and crop as two gathers, of rows and then of columns."""
        device, (batch, modalities, channels, height, width) = images.device, images.shape
        pad = self.pad_pixels
        padded = F.pad(images, (pad, pad, pad, pad))
        padded_height, padded_width = padded.shape[-2:]

        rows = (top + torch.arange(height, device=device)).expand(batch, modalities, height)
        planes = torch.arange(batch * modalities * channels, device=device).view(batch, modalities, channels, 1)
        rows = planes * padded_height + rows[:, :, None]  # (B, M, 3, H), counted through the batch
        cropped = padded.reshape(-1, padded_width).index_select(0, rows.flatten())
        cropped = cropped.view(batch, modalities, channels, height, padded_width)

        columns = left + torch.arange(width, device=device)  # (B, G, W)
        columns = torch.where(flip, padded_width - 1 - columns, columns)
        return cropped.gather(-1, columns[:, :, None, None].expand(images.shape))

    def _crop_on_host(self, images: Tensor, result: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> None:
        """`_crop` into the floats `result` on a CPU, where copies of rectangles are much faster than gathers."""
        (height, width), geometries = images.shape[-2:], top.shape[1]
        images, result = (x.unflatten(1, (geometries, -1)) for x in (images, result))  # (B, G, M / G, 3, H, W)
        result.zero_()
        drawn = torch.cat([top, left, flip], dim=2).tolist()  # (B, G, 3)
        for source, target, of_sample in zip(images, result, drawn, strict=True):
            for g, (first_row, first_column, flipped) in enumerate(of_sample):
                down, right = first_row - self.pad_pixels, first_column - self.pad_pixels
                image = source[g].flip(-1) if flipped else source[g]
                seen = image[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
                y, x = max(-down, 0), max(-right, 0)
                target[g][..., y : y + seen.shape[-2], x : x + seen.shape[-1]] = seen

    def _draw_erased(
        self, images: Tensor, present: Tensor, geometries: tuple[int, int], generator: torch.Generator, own: slice
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Which images (B, M) bool lose their box (B, G, 4), and the noise they get there; None without erasing."""
        if self.erase_prob == 0:
            return None
        erase = torch.rand(geometries, generator=generator, device=images.device) < self.erase_prob
        boxes = _draw_boxes(geometries, images.shape[-2:], generator, images.device)
        noise = _noise_like(images, generator, total=len(erase), start=own.start)
        return erase[own] & present, boxes[own], noise


def _on_host(images: Tensor) -> bool:
    """Whether to go sample by sample, within the cache: a CPU gains by it, a card would starve."""
    return images.device.type == "cpu"


def _erase_on_host(images: Tensor, chosen: Tensor, boxes: Tensor, noise: Tensor) -> None:
    """Write noise (B, M, 3, H, W) into the boxes (B, G, 4) of the chosen (B, M) images, touching nothing else."""
    boxes = boxes.long().expand(*chosen.shape, 4)
    places = zip(chosen.nonzero().tolist(), boxes[chosen].tolist(), strict=True)
    for (sample, modality), (top, left, tall, wide) in places:
        area = (sample, modality, ..., slice(top, top + tall), slice(left, left + wide))
        images[area] = noise[area]


def draw_rectangles(
    shape: tuple[int, ...],
    size_hw: tuple[int, int],
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Rectangles as masks (*shape, H, W) bool.

    Area and log aspect ratio are uniform in ERASE_AREA and ERASE_LOG_ASPECT; of ERASE_TRIES draws the first counts
    that is smaller than the image both ways, at a uniform place; if none is, the mask is empty.
    """
    return _as_masks(_draw_boxes(shape, size_hw, generator, device), size_hw)


def _draw_boxes(
    shape: tuple[int, ...], size_hw: tuple[int, int], generator: torch.Generator, device: torch.device
) -> Tensor:
    """The rectangles of `draw_rectangles` as top, left, height and width, (*shape, 4) whole numbers in float32."""
    height, width = size_hw
    area, aspect, top, left = torch.rand((4, *shape, ERASE_TRIES), generator=generator, device=device)
    area = (ERASE_AREA[0] + area * (ERASE_AREA[1] - ERASE_AREA[0])) * (height * width)
    aspect = (ERASE_LOG_ASPECT[0] + aspect * (ERASE_LOG_ASPECT[1] - ERASE_LOG_ASPECT[0])).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.byte().argmax(-1, keepdim=True)  # the first of equals
    tall, wide, top, left, fits = (values.gather(-1, first) for values in (tall, wide, top, left, fits))
    # top is uniform in 0..height - tall; the minimum is for a product that float32 rounds up to the next integer.
    top = torch.minimum((top * (height - tall + 1)).floor(), height - tall)
    left = torch.minimum((left * (width - wide + 1)).floor(), width - wide)
    return torch.cat([top, left, tall * fits, wide], dim=-1)


def _as_masks(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) as masks (..., H, W) bool."""
    y, x = (torch.arange(size, device=boxes.device) for size in size_hw)
    top, left, tall, wide = boxes.unsqueeze(-1).unbind(-2)  # (..., 1)
    inside_y, inside_x = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
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
