"""Read where the object is: as images, or as shares of patches. Only the synthetic set has masks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.loading.decode import read_rgb
from data.sample import Sample
from utils.errors import UserError


def load_masks(samples: Sequence[Sample], size_hw: tuple[int, int], *, workers: int = 1) -> np.ndarray:
    """Decode the samples' masks and resize them (bilinear): (N, H, W) uint8, 255 on the object.

    Args:
        samples: N samples.
        size_hw: height and width in pixels.
        workers: threads that decode.

    Raises:
        UserError: a sample has no mask, or a mask's file does not exist or is broken.
    """
    for sample in samples:
        if sample.mask is None:
            raise UserError(
                f"The score that MODEL.SDTPS_SCORE names needs the mask of the object, and {sample.name} has none in "
                "this data set. Only the synthetic set has masks (DATASETS.NAMES: synthetic). Choose that set, or "
                "another MODEL.SDTPS_SCORE."
            )
    masks = np.empty((len(samples), *size_hw), np.uint8)

    def load(index: int) -> None:
        mask = read_rgb(samples[index].mask).convert("L")
        masks[index] = np.asarray(mask.resize(size_hw[::-1], Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(load, range(len(samples))):  # raises the first error, and then starts no further mask
            pass
    return masks


def patch_coverage(samples: Sequence[Sample], grid: tuple[int, int]) -> Tensor | None:
    """Return the share of each patch that lies on the object: (N, rows * columns) float32, or None.

    It is None if any sample has no mask.

    Args:
        samples: N samples.
        grid: rows and columns of patches.

    Raises:
        UserError: a mask's file does not exist or is broken.
    """
    if any(sample.mask is None for sample in samples):
        return None
    rows, columns = grid
    shares = np.empty((len(samples), rows * columns), np.float32)
    for i, sample in enumerate(samples):
        mask = read_rgb(sample.mask).convert("L")
        shares[i] = np.asarray(mask.resize((columns, rows), Image.Resampling.BOX), np.float32).ravel()
    return torch.from_numpy(shares / 255)
