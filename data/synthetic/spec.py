"""Specify a synthetic set: its sizes, difficulty, composition and seed, and the random streams that they determine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from math import isfinite

import numpy as np

from utils.errors import UserError

GENERATOR_VERSION = 1  # Raise it when the same spec would give other pixels, so that old folders are not used.

MAX_IDS = 999_999  # six digits in the file name, train and test together
MIN_SIDE = 16  # pixels; a person cannot be drawn in fewer


class Stream(IntEnum):
    """A stream's number is the first word of its key, so that streams of different kinds never coincide."""

    COHORT = 0
    IDENTITY = 1
    CAMERA = 2
    VISIT = 3
    IMAGE = 4


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """A spec describes a synthetic set completely: two equal specs give the same bytes.

    Raises:
        UserError: a number is out of range, or there are too few images for two cameras to see every identity.
    """

    train_ids: int
    test_ids: int
    train_images: int
    """Samples of the training split, spread over its identities as evenly as possible."""
    test_images: int
    size_hw: tuple[int, int]
    """Height and width in pixels."""
    difficulty: float
    """From 0 (clean) to 1: how often modalities are ruined and persons occluded, and how much cameras differ."""
    off_centre: float
    """From 0 (persons stand near the centre of the image) to 1 (anywhere between its left and right edge)."""
    seed: int

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            ids, images = self.num_ids(split), getattr(self, f"{split}_images")
            _require_whole(f"SYNTHETIC.{split.upper()}_IDS", ids, at_least=1)
            _require_whole(f"SYNTHETIC.{split.upper()}_IMAGES", images, at_least=1)
            if images < 2 * ids:
                raise UserError(
                    f"SYNTHETIC.{split.upper()}_IMAGES is {images}, which is less than two for each of the {ids} "
                    f"identities of SYNTHETIC.{split.upper()}_IDS, although two cameras must see every identity. Set "
                    f"SYNTHETIC.{split.upper()}_IMAGES to {2 * ids} or more, or lower the number of identities."
                )
        if self.train_ids + self.test_ids > MAX_IDS:
            raise UserError(
                f"SYNTHETIC.TRAIN_IDS is {self.train_ids} and SYNTHETIC.TEST_IDS {self.test_ids}. Together they may be "
                f"at most {MAX_IDS}, because file names have six digits for them. Lower one of them."
            )
        if len(self.size_hw) != 2:
            raise UserError(f"SYNTHETIC.SIZE is {self.size_hw}. Allowed: two numbers of pixels, height and width.")
        for side in self.size_hw:
            _require_whole("SYNTHETIC.SIZE", side, at_least=MIN_SIDE)
        if not isfinite(self.difficulty) or not 0 <= self.difficulty <= 1:
            raise UserError(f"SYNTHETIC.DIFFICULTY is {self.difficulty}. Allowed: 0 (clean) to 1 (hard).")
        if not isfinite(self.off_centre) or not 0 <= self.off_centre <= 1:
            raise UserError(
                f"SYNTHETIC.OFF_CENTRE is {self.off_centre}. Allowed: 0 (near the centre) to 1 (anywhere in the width)."
            )
        _require_whole("SYNTHETIC.SEED", self.seed, at_least=0)

    @property
    def folder_name(self) -> str:
        """Return a readable name with a hash of the spec and the generator's version, so that no two sets share it."""
        height, width = self.size_hw
        off_centre = f"_o{self.off_centre:g}" if self.off_centre else ""
        digest = hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:8]
        return (
            f"synthetic_{self.train_ids}+{self.test_ids}ids_{self.train_images}+{self.test_images}img_"
            f"{height}x{width}_d{self.difficulty:g}{off_centre}_s{self.seed}_{digest}"
        )

    def as_json(self) -> dict[str, object]:
        """Return the content of spec.json."""
        return {**asdict(self), "size_hw": list(self.size_hw), "generator_version": GENERATOR_VERSION}

    def num_ids(self, split: str) -> int:
        """Return the number of identities of the split, 'train' or 'test'."""
        return getattr(self, f"{split}_ids")

    def num_images(self, split: str, index: int) -> int:
        """Return the number of samples of the split's identity number `index`."""
        ids, images = self.num_ids(split), getattr(self, f"{split}_images")
        return images // ids + (index < images % ids)


def rng_for(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Return the generator of one stream, as a function of the arguments alone, whatever else was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


def _require_whole(key: str, value: int, *, at_least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{key} is {value!r}. Allowed: whole numbers from {at_least}.")
