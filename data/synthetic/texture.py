"""Describe textures in the coordinates of the garment by eight numbers, which one formula evaluates.

The angle round the body is s, in radians (0 at the front, pi at the back), and v runs along the part from 0 at its
upper end to 1 at its lower end. A pixel shows the second colour where a wave exceeds its threshold or where it lies in
a window:

    sum:     sin(2 pi (wave_s s + wave_v v)) > threshold
    product: sin(2 pi wave_s s) sin(2 pi wave_v v) > threshold      (checks)
    window:  |s - centre_s| < half_s  and  |v - centre_v| < half_v  (s wraps round the body)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EVERYWHERE = 99.0  # half width of a window that leaves nothing out
NEVER = 2.0  # threshold that no wave exceeds


class Field(NamedTuple):
    """A field says where one part shows its second colour."""

    wave_s: float = 0.0
    wave_v: float = 0.0
    is_product: float = 0.0
    threshold: float = NEVER
    centre_s: float = 0.0
    half_s: float = -1.0
    centre_v: float = 0.5
    half_v: float = EVERYWHERE


class Texture(NamedTuple):
    """A texture says where the upper garment's body and its sleeves show the second colour."""

    body: Field = Field()
    sleeve: Field = Field()


ALL = Field(half_s=EVERYWHERE)
BACK = float(np.pi)

RGB_TEXTURES = (
    Texture(),
    Texture(Field(wave_v=5.5, threshold=0.0), Field(wave_v=2.5, threshold=0.0)),  # hoops
    Texture(Field(wave_s=1.5, threshold=0.25), Field(wave_s=0.8, threshold=0.25)),  # stripes
    Texture(  # checks
        Field(wave_s=0.9, wave_v=3.0, is_product=1.0, threshold=0.0),
        Field(wave_s=0.6, wave_v=1.5, is_product=1.0, threshold=0.0),
    ),
    Texture(Field(half_s=0.55, centre_v=0.36, half_v=0.13)),  # print on the chest
    Texture(Field(half_s=0.75, centre_s=BACK, centre_v=0.40, half_v=0.17)),  # print on the back
    Texture(Field(half_s=EVERYWHERE, centre_v=0.80, half_v=0.32)),  # two-tone
    Texture(Field(half_s=0.34)),  # open jacket
    Texture(Field(half_s=EVERYWHERE, centre_v=0.36, half_v=0.09), Field(half_s=EVERYWHERE, centre_v=0.4, half_v=0.2)),
    Texture(sleeve=ALL),  # sleeves of another colour
)
NI_TEXTURES = (
    Texture(),
    Texture(Field(half_s=EVERYWHERE, centre_v=0.0, half_v=0.34)),  # yoke
    Texture(sleeve=ALL),
    Texture(Field(half_s=EVERYWHERE, centre_v=1.0, half_v=0.36)),  # lower panel
    Texture(Field(half_s=0.9), ALL),  # front panel and sleeves
)
TI_TEXTURES = (
    Texture(),
    Texture(Field(wave_v=4.0, threshold=0.35), Field(wave_v=2.0, threshold=0.35)),  # quilting
    Texture(sleeve=ALL),  # padded vest
    Texture(Field(half_s=0.8, centre_v=0.3, half_v=0.4)),  # unzipped
    Texture(Field(half_s=1.1, centre_s=BACK, centre_v=0.3, half_v=0.35), ALL),  # vented back
)


def second_colour(fields: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return whether pixels show the second colour: (..., n) bool from fields (..., n, 8), s and v (n,)."""
    wave_s, wave_v, is_product, threshold, centre_s, half_s, centre_v, half_v = np.moveaxis(fields, -1, 0)
    turns_s, turns_v = 2 * np.pi * wave_s * s, 2 * np.pi * wave_v * v
    wave = np.where(is_product > 0, np.sin(turns_s) * np.sin(turns_v), np.sin(turns_s + turns_v))
    distance_s = np.abs(wrap_angle(s - centre_s))
    return (wave > threshold) | ((distance_s < half_s) & (np.abs(v - centre_v) < half_v))


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Return the same angle in [-pi, pi]."""
    return angle - 2 * np.pi * np.rint(angle * (0.5 / np.pi))
