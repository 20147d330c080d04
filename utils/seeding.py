"""Random numbers as pure functions of (seed, epoch, step): nothing is carried over from step to step.

A step reseeds what it draws from, so an interrupted run continues with the numbers it would have drawn anyway, and a
checkpoint needs no generator states.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers >= 0, such as (seed, epoch, step, stream)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch (CPU and every CUDA device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
