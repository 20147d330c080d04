"""Define who is who: the attributes of an identity, and the design that makes them collide in any one modality.

Identities come in cohorts of nine that share their shape (build, hair style, cut of the clothes, kind of bag), which
every modality sees. A cohort has three looks per modality, and its nine members are the rows of the orthogonal array
OA(9, 3, 3, 2): in any *one* modality a member looks like two others, and in any *two* modalities like nobody else.
Looks are drawn from short palettes, independently in each modality, so that one says nothing about another.

Channels of a surface, in the order of MODALITIES: red, green, blue | near-infrared reflectance | warmth, where 0 is
the ambient temperature and 1 that of bare skin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.synthetic.spec import Stream, rng_for
from data.synthetic.texture import NI_TEXTURES, RGB_TEXTURES, TI_TEXTURES, Texture

SLOTS = ("skin", "hair", "upper", "lower", "shoes", "bag", "hat")
"""A person is made of these parts, the first axis of `Identity.materials`."""

CHANNELS = {"RGB": slice(0, 3), "NI": slice(3, 4), "TI": slice(4, 5)}
NUM_CHANNELS = 5

SKIN_RGB = ((0.95, 0.78, 0.66), (0.85, 0.65, 0.50), (0.64, 0.45, 0.33), (0.42, 0.29, 0.22))
HAIR_RGB = ((0.07, 0.06, 0.06), (0.28, 0.18, 0.11), (0.70, 0.55, 0.32), (0.50, 0.50, 0.50))
UPPER_RGB = (
    (0.09, 0.09, 0.10),  # black
    (0.90, 0.90, 0.88),  # white
    (0.52, 0.53, 0.55),  # grey
    (0.75, 0.13, 0.15),  # red
    (0.12, 0.18, 0.45),  # navy
    (0.30, 0.58, 0.82),  # sky blue
    (0.16, 0.42, 0.24),  # green
    (0.88, 0.68, 0.17),  # mustard
    (0.78, 0.45, 0.58),  # rose
)
LOWER_RGB = (
    (0.10, 0.10, 0.12),  # black
    (0.22, 0.32, 0.52),  # denim
    (0.72, 0.63, 0.47),  # khaki
    (0.45, 0.46, 0.48),  # grey
    (0.86, 0.85, 0.82),  # white
    (0.38, 0.22, 0.18),  # brown
)
SHOES_RGB = ((0.08, 0.08, 0.08), (0.92, 0.92, 0.92), (0.45, 0.28, 0.17), (0.72, 0.16, 0.18))
NI_LEVELS = (0.12, 0.36, 0.60, 0.86)
WARMTH_LEVELS = (0.14, 0.32, 0.50, 0.68)  # from thickly insulated garments to thin cloth
BODY_HEAT = (0.88, 1.0)
BAG_WARMTH = (-0.10, 0.02, 0.14)
JITTER = 0.015  # between members that share a look, in every channel; light and sensor change far more

HAIR_STYLES = ("short", "bob", "long", "ponytail", "cap")
SLEEVES = ("long", "short")
CUTS = ("shirt", "jacket", "coat")
LOWERS = ("trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "shoulder", "hand")
BUILDS = (0.88, 1.0, 1.14)

COHORT_ROWS = ((0, 0, 0), (0, 1, 1), (1, 1, 2), (2, 0, 2), (1, 2, 0), (2, 2, 1), (0, 2, 2), (1, 0, 1), (2, 1, 0))
"""OA(9, 3, 3, 2) gives the number of the look in RGB, NI and TI. In this order even few members of a cohort collide."""
LOOKS = 3
COHORTS_AT_ONCE = 3  # cohorts that are filled in turns, so that few identities make several of similar size


@dataclass(frozen=True, eq=False)
class Look:
    """A look is how a cohort's garments appear in one modality."""

    code: tuple[int, ...]
    """The palette entries that it was made from: two looks with one code cannot be told apart."""
    values: np.ndarray
    """(slots, 2, channels of the modality): first and second colour of each slot."""
    texture: Texture
    """Where the upper garment shows its second colour."""


@dataclass(frozen=True)
class Shape:
    """A shape is the outline and cut, which every modality sees."""

    build: float
    hair: str
    sleeves: str
    cut: str
    lower: str
    bag: str


@dataclass(frozen=True, eq=False)
class Identity:
    """An identity is one person: what is drawn, and the true attributes (`codes`) for oracles."""

    shape: Shape
    looks: tuple[Look, ...]
    """One per modality, in the order of CHANNELS."""
    materials: np.ndarray
    """(slots, 2, NUM_CHANNELS) float32."""
    height: float
    """Relative to the average person."""

    @property
    def codes(self) -> dict[str, tuple]:
        """Return the attributes that each modality can show: the shape and the look in this modality."""
        return {name: (self.shape, look.code) for name, look in zip(CHANNELS, self.looks, strict=True)}


@lru_cache(maxsize=64)
def make_identity(seed: int, split: int, index: int) -> Identity:
    """Make identity number `index` of a split, as a function of the arguments alone."""
    block, position = divmod(index, COHORTS_AT_ONCE * len(COHORT_ROWS))
    cohort, row = COHORTS_AT_ONCE * block + position % COHORTS_AT_ONCE, COHORT_ROWS[position // COHORTS_AT_ONCE]
    shape, looks_by_modality = _make_cohort(rng_for(seed, Stream.COHORT, split, cohort))
    looks = tuple(looks[number] for looks, number in zip(looks_by_modality, row, strict=True))

    rng = rng_for(seed, Stream.IDENTITY, split, index)
    materials = np.concatenate([look.values for look in looks], axis=2)
    materials = (materials + rng.normal(0, JITTER, materials.shape)).astype(np.float32)
    return Identity(shape, looks, materials, height=1 + 0.03 * float(rng.uniform(-1, 1)))


def make_stranger(rng: np.random.Generator) -> Identity:
    """Make somebody who belongs to no split; passers-by wear the same clothes as identities."""
    shape, looks = _make_cohort(rng)
    looks = tuple(choice[0] for choice in looks)
    materials = np.concatenate([look.values for look in looks], axis=2).astype(np.float32)
    return Identity(shape, looks, materials, height=1.0)


def _make_cohort(rng: np.random.Generator) -> tuple[Shape, tuple[list[Look], ...]]:
    def pick(options: tuple) -> object:
        return options[rng.integers(len(options))]

    shape = Shape(pick(BUILDS), pick(HAIR_STYLES), pick(SLEEVES), pick(CUTS), pick(LOWERS), pick(BAGS))
    return shape, (_rgb_looks(rng), _ni_looks(rng), _ti_looks(rng))


def _distinct(rng: np.random.Generator, options: int) -> list[int]:
    """Draw one option for each look of a cohort, all different."""
    return rng.permutation(options)[:LOOKS].tolist()


def _rgb_looks(rng: np.random.Generator) -> list[Look]:
    looks = []
    skin = int(rng.integers(len(SKIN_RGB)))  # like the hair style, something that a cohort has in common
    for upper, lower in zip(_distinct(rng, len(UPPER_RGB)), _distinct(rng, len(LOWER_RGB)), strict=True):
        second = int((upper + rng.integers(1, len(UPPER_RGB))) % len(UPPER_RGB))
        hair, shoes = rng.integers(len(HAIR_RGB)), rng.integers(len(SHOES_RGB))
        bag, hat, texture = rng.integers((len(UPPER_RGB), len(UPPER_RGB), len(RGB_TEXTURES)))
        first = (SKIN_RGB[skin], HAIR_RGB[hair], UPPER_RGB[upper], LOWER_RGB[lower], SHOES_RGB[shoes])
        values = np.repeat(np.array([*first, UPPER_RGB[bag], UPPER_RGB[hat]])[:, None], 2, axis=1)
        values[SLOTS.index("upper"), 1] = UPPER_RGB[second]
        code = (skin, hair, upper, second, lower, shoes, bag, hat, texture)
        looks.append(Look(tuple(map(int, code)), values, RGB_TEXTURES[texture]))
    return looks


def _ni_looks(rng: np.random.Generator) -> list[Look]:
    looks = []
    for upper, lower in zip(_distinct(rng, len(NI_LEVELS)), _distinct(rng, len(NI_LEVELS)), strict=True):
        second = int((upper + rng.integers(1, len(NI_LEVELS))) % len(NI_LEVELS))
        hair, shoes, bag, hat = rng.integers((2, len(NI_LEVELS), len(NI_LEVELS), len(NI_LEVELS)))
        texture = int(rng.integers(len(NI_TEXTURES)))
        # Skin of every tone is bright in the near infrared.
        first = [0.74, (0.22, 0.42)[hair], *(NI_LEVELS[level] for level in (upper, lower, shoes, bag, hat))]
        values = np.repeat(np.array(first)[:, None, None], 2, axis=1)
        values[SLOTS.index("upper"), 1] = NI_LEVELS[second]
        code = (hair, upper, second, lower, shoes, bag, hat, texture)
        looks.append(Look(tuple(map(int, code)), values, NI_TEXTURES[texture]))
    return looks


def _ti_looks(rng: np.random.Generator) -> list[Look]:
    looks = []
    for upper, lower in zip(_distinct(rng, len(WARMTH_LEVELS)), _distinct(rng, len(WARMTH_LEVELS)), strict=True):
        second = int((upper + rng.integers(1, len(WARMTH_LEVELS))) % len(WARMTH_LEVELS))
        heat, shoes, bag = rng.integers((len(BODY_HEAT), len(WARMTH_LEVELS), len(BAG_WARMTH)))
        hair, texture = rng.integers((2, len(TI_TEXTURES)))
        first = [1.0, (0.42, 0.62)[hair], *(WARMTH_LEVELS[level] for level in (upper, lower, shoes)), 0.0, 0.36]
        values = BODY_HEAT[heat] * np.repeat(np.array(first)[:, None, None], 2, axis=1)
        values[SLOTS.index("upper"), 1] = BODY_HEAT[heat] * WARMTH_LEVELS[second]
        values[SLOTS.index("bag")] = BAG_WARMTH[bag]  # there is no body inside
        code = (heat, hair, upper, second, lower, shoes, bag, texture)
        looks.append(Look(tuple(map(int, code)), values, TI_TEXTURES[texture]))
    return looks
