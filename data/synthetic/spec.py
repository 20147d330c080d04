"""What a synthetic set is made from: its sizes, difficulty and seed, and the random streams that follow from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from math import isfinite

import numpy as np

from utils.errors import UserError

GENERATOR_VERSION = 1
"""Counted up whenever the same spec would give other pixels, so that an old folder is not taken for a new one."""

MAX_IDS = 999_999  # six digits in the file name, train and test together
MIN_SIDE = 16  # pixels; less does not hold a figure


class Stream(IntEnum):
    """First word of a random stream's key: streams of different kinds never meet."""

    COHORT = 0
    IDENTITY = 1
    CAMERA = 2
    VISIT = 3
    IMAGE = 4


@dataclass(frozen=True)
class SyntheticSpec:
    """A synthetic set in full: two equal specs give the same bytes.

    Raises:
        UserError: a number out of range, or too few images for every identity to be seen by two cameras.
    """

    train_ids: int = 48
    test_ids: int = 20
    train_images: int = 768
    """Triplets of the training split, spread over its identities as evenly as possible."""
    test_images: int = 240
    size_hw: tuple[int, int] = (256, 128)
    """Pixels, (height, width)."""
    difficulty: float = 0.5
    """From 0 (clean) to 1: how often modalities are ruined and figures occluded, how far cameras are apart."""
    seed: int = 0

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            ids, images = self.ids_of(split), getattr(self, f"{split}_images")
            _require_whole(f"SYNTHETIC.{split.upper()}_IDS", ids, at_least=1)
            _require_whole(f"SYNTHETIC.{split.upper()}_IMAGES", images, at_least=1)
            if images < 2 * ids:
                raise UserError(
                    f"SYNTHETIC.{split.upper()}_IMAGES is {images}, which is less than two for each of the {ids} "
                    f"identities of SYNTHETIC.{split.upper()}_IDS; every identity must be seen by two cameras. Set "
                    f"SYNTHETIC.{split.upper()}_IMAGES to {2 * ids} or more, or have fewer identities."
                )
        if self.train_ids + self.test_ids > MAX_IDS:
            raise UserError(
                f"SYNTHETIC.TRAIN_IDS is {self.train_ids} and SYNTHETIC.TEST_IDS {self.test_ids}: together at most "
                f"{MAX_IDS}, because the file names hold six digits. Lower either."
            )
        if len(self.size_hw) != 2:
            raise UserError(f"SYNTHETIC.SIZE is {self.size_hw}. Allowed: two numbers of pixels, height and width.")
        for side in self.size_hw:
            _require_whole("SYNTHETIC.SIZE", side, at_least=MIN_SIDE)
        if not isfinite(self.difficulty) or not 0 <= self.difficulty <= 1:
            raise UserError(f"SYNTHETIC.DIFFICULTY is {self.difficulty}. Allowed: 0 (clean) to 1 (hard).")
        _require_whole("SYNTHETIC.SEED", self.seed, at_least=0)

    @property
    def folder_name(self) -> str:
        """Readable, and with a hash of everything (the generator's version too): one folder for one set of bytes."""
        height, width = self.size_hw
        digest = hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:8]
        return (
            f"synthetic_{self.train_ids}+{self.test_ids}ids_{self.train_images}+{self.test_images}img_"
            f"{height}x{width}_d{self.difficulty:g}_s{self.seed}_{digest}"
        )

    def as_json(self) -> dict[str, object]:
        """The content of spec.json."""
        return {**asdict(self), "size_hw": list(self.size_hw), "generator_version": GENERATOR_VERSION}

    def ids_of(self, split: str) -> int:
        """Identities of the split, 'train' or 'test'."""
        return getattr(self, f"{split}_ids")

    def images_of(self, split: str, index: int) -> int:
        """Triplets of the split's identity number `index`."""
        ids, images = self.ids_of(split), getattr(self, f"{split}_images")
        return images // ids + (index < images % ids)


def rng_for(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """The generator of one stream: a function of its arguments alone, whatever else was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


def _require_whole(key: str, value: int, *, at_least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{key} is {value!r}. Allowed: whole numbers from {at_least}.")
