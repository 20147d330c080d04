"""Random numbers as pure functions of (seed, epoch, step): no state is carried over from step to step.

Each step seeds its generators, so a resumed run draws the same numbers as an uninterrupted one, and a checkpoint needs
no generator states.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """Combine several integers >= 0, such as (seed, epoch, step, stream), into one 63-bit seed.

    Zeros at the end make no difference: (1, 2) gives the seed of (1, 2, 0).
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch (CPU and every CUDA device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
