"""Compute where the object is on the grid of patches. Only the synthetic set has masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.loading.decode import read_rgb
from data.sample import Sample


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
