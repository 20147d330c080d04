"""Augmentation and normalisation of whole batches, on the device they are on.

Shapes: B batch, M modality, H x W pixels, T tries of a rectangle; G is B*M, or B where the modalities share geometry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ERASE_AREA = (0.02, 1 / 3)
ERASE_ASPECT = (0.3, 1 / 0.3)
ERASE_TRIES = 10


def normalize(images: Tensor, present: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images (B, M, 3, H, W) uint8 to (x / 255 - mean) / std float32; an absent modality, present (B, M), is all 0."""
    # One multiply-add: x * (1 / (255 std)) - mean / std.
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    scaled = torch.addcmul(shift.view(3, 1, 1), images.float(), scale.view(3, 1, 1))
    return scaled.masked_fill_(~present[:, :, None, None, None], 0.0)


class TrainAugment:
    """Flip, pad and crop, normalise, erase: the original's transforms and parameters, batched.

    Args:
        flip_prob: of a horizontal flip.
        pad_pixels: black border, before a random crop back to size.
        erase_prob: of random erasing (Zhong et al., AAAI 2020): a rectangle of 2 % to 33 % of the image, of aspect 0.3 to
            3.3, becomes N(0, 1) noise after the normalisation.
        mean: per channel, of pixels in [0, 1]; std likewise.
        sync_geometry: one flip, crop and rectangle for the modalities of a sample; False draws them for each, as the
            original does. The noise in the rectangle is independent either way.
    """

    def __init__(
        self,
        *,
        flip_prob: float,
        pad_pixels: int,
        erase_prob: float,
        mean: Sequence[float],
        std: Sequence[float],
        sync_geometry: bool,
    ) -> None:
        self.flip_prob = flip_prob
        self.pad_pixels = pad_pixels
        self.erase_prob = erase_prob
        self.mean, self.std = tuple(mean), tuple(std)
        self.sync_geometry = sync_geometry

    def __call__(self, images: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, M, 3, H, W) uint8, present (B, M) to float32; everything is drawn from `generator`."""
        images = normalize(self._flip_and_crop(images, generator), present, mean=self.mean, std=self.std)
        return self._erase(images, present, generator)

    def _draw(self, images: Tensor, *shape: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers (B, M, *shape), the same along M where the geometry is shared."""
        B, M = images.shape[:2]
        drawn = torch.rand(B, 1 if self.sync_geometry else M, *shape, device=images.device, generator=generator)
        return drawn.expand(B, M, *shape)

    def _flip_and_crop(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One gather: where each output pixel comes from in the padded image."""
        H, W = images.shape[-2:]
        pad = self.pad_pixels
        flip, top, left = self._draw(images, 3, generator=generator).unbind(-1)  # (B, M)
        rows = torch.arange(H, device=images.device) + (top * (2 * pad + 1)).long().unsqueeze(-1)  # (B, M, H)
        columns = torch.arange(W, device=images.device) + (left * (2 * pad + 1)).long().unsqueeze(-1)
        columns = torch.where((flip < self.flip_prob).unsqueeze(-1), columns.flip(-1), columns)  # (B, M, W)
        padded = F.pad(images, (pad, pad, pad, pad))
        source = rows.unsqueeze(-1) * (W + 2 * pad) + columns.unsqueeze(-2)  # (B, M, H, W)
        source = source.flatten(2).unsqueeze(2).expand(-1, -1, 3, -1)
        return padded.flatten(3).gather(3, source).view_as(images)

    def _erase(self, images: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Noise in one rectangle per image; of ten drawn, the first that fits, as timm's RandomErasing tries them."""
        H, W = images.shape[-2:]
        drawn = self._draw(images, ERASE_TRIES, 4, generator=generator)  # (B, M, T, 4)
        area = H * W * (ERASE_AREA[0] + drawn[..., 0] * (ERASE_AREA[1] - ERASE_AREA[0]))
        aspect = torch.exp(math.log(ERASE_ASPECT[0]) + drawn[..., 1] * math.log(ERASE_ASPECT[1] / ERASE_ASPECT[0]))
        height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (height < H) & (width < W)
        first = fits.long().argmax(dim=-1, keepdim=True)  # (B, M, 1)
        height, width, u, v = (x.gather(2, first) for x in (height, width, drawn[..., 2], drawn[..., 3]))
        top, left = (u * (H - height + 1)).floor(), (v * (W - width + 1)).floor()
        rows, columns = torch.arange(H, device=images.device), torch.arange(W, device=images.device)
        in_rows = (rows >= top) & (rows < top + height)  # (B, M, H)
        in_columns = (columns >= left) & (columns < left + width)
        chosen = self._draw(images, 1, generator=generator) < self.erase_prob
        chosen = chosen & fits.any(dim=-1, keepdim=True) & present.unsqueeze(-1)
        mask = (in_rows & chosen).unsqueeze(-1) & in_columns.unsqueeze(-2)  # (B, M, H, W)
        noise = torch.randn(images.shape, device=images.device, generator=generator)
        return torch.where(mask.unsqueeze(2), noise, images)
