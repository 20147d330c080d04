"""Seeds are pure functions of their parts."""

import random

import numpy as np
import torch

from utils.seeding import derive_seed, seed_all


def test_seeds_differ_by_part_and_by_position():
    seeds = [derive_seed(*parts) for parts in ((1, 2), (2, 1), (1, 2, 1), (1, 3), (1,))]
    assert len(set(seeds)) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) == seeds[0]


def test_every_generator_is_seeded():
    drawn = []
    for _ in range(2):
        seed_all(derive_seed(7, 0))
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
