"""Draw things that are not the person: clutter behind and occluders in front."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.synthetic.canvas import Canvas, Surface, box, capsule, ellipse, patch
from data.synthetic.identity import LOWER_RGB, UPPER_RGB, make_stranger
from data.synthetic.person import Pose, View, draw_person

MAX_COVER = 0.35  # share of the person, at difficulty 1
LEAVES = 60  # clumps of a bush
ATTEMPTS = 4  # to place an occluder that covers no more than allowed

Box = tuple[float, float, float, float]


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a moment of a walk, from standing to striding."""
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.08, 0.52)),
        swing=float(rng.uniform(0.10, 0.60)),
        elbow=float(rng.uniform(0.15, 0.90)),
        lean=float(rng.uniform(-0.02, 0.12)),
    )


def _thing(colour: tuple[float, ...], near_infrared: float, warmth: float, **look: float) -> Surface:
    values = np.array([*colour, near_infrared, warmth], np.float32)
    return Surface(np.stack([values, values]), **look)


def _cloth_like(rng: np.random.Generator, relief: float) -> Surface:
    """Give the colours of clothes to something that is not clothing."""
    palette = UPPER_RGB + LOWER_RGB
    colour = palette[rng.integers(len(palette))]
    return _thing(colour, float(rng.uniform(0.1, 0.85)), float(rng.choice([0.0, 0.08, 0.30])), relief=relief)


# ----------------------------------------------------------------------------------------------------------- clutter
def draw_clutter(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Paint `count` things into the background."""
    kinds = (_crate, _banner, _case, _passer_by)
    for _ in range(count):
        kinds[rng.integers(len(kinds))](canvas, rng)


def _crate(canvas: Canvas, rng: np.random.Generator) -> None:
    h, x = canvas.height, rng.uniform(-0.1, 1.0) * canvas.width
    wide, high, foot = rng.uniform(0.08, 0.16) * h, rng.uniform(0.07, 0.16) * h, rng.uniform(0.58, 0.95) * h
    surface = _cloth_like(rng, 0.25)
    canvas.add(*box(x, foot - high, x + wide, foot), surface)
    lid = [
        (x, foot - high),
        (x + 0.2 * wide, foot - 1.2 * high),
        (x + 1.15 * wide, foot - 1.2 * high),
        (x + wide, foot - high),
    ]
    canvas.add(*patch(lid), Surface(surface.values * 1.15, relief=0.0))


def _banner(canvas: Canvas, rng: np.random.Generator) -> None:
    h, x = canvas.height, rng.uniform(-0.1, 0.9) * canvas.width
    wide, high, top = rng.uniform(0.07, 0.13) * h, rng.uniform(0.16, 0.30) * h, rng.uniform(0.02, 0.30) * h
    canvas.add(*box(x + 0.45 * wide, top, x + 0.55 * wide, top + high + 0.25 * h), _thing((0.3, 0.3, 0.32), 0.3, 0.05))
    canvas.add(*box(x, top, x + wide, top + high), _cloth_like(rng, 0.0))
    canvas.add(*box(x + 0.15 * wide, top + 0.5 * high, x + 0.85 * wide, top + 0.8 * high), _cloth_like(rng, 0.0))


def _case(canvas: Canvas, rng: np.random.Generator) -> None:
    h, x, foot = canvas.height, rng.uniform(0.0, 1.0) * canvas.width, rng.uniform(0.6, 0.97) * canvas.height
    metal, surface = _thing((0.2, 0.2, 0.2), 0.2, 0.0), _cloth_like(rng, 0.35)
    for rail in (0.02, 0.07):
        canvas.add(*box(x + rail * h, foot - 0.22 * h, x + (rail + 0.006) * h, foot - 0.1 * h), metal)
    canvas.add(*box(x, foot - 0.15 * h, x + 0.1 * h, foot), surface)
    canvas.add(*box(x, foot - 0.10 * h, x + 0.1 * h, foot - 0.09 * h), Surface(surface.values * 0.6, relief=0.35))


def _passer_by(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw another pedestrian, farther away."""
    tall = rng.uniform(0.28, 0.45) * canvas.height
    foot = (rng.uniform(-0.05, 1.05) * canvas.width, 0.47 * canvas.height + 0.45 * tall)
    view = View(float(rng.uniform(-np.pi, np.pi)), 0.1, 0.0, float(tall), foot)
    draw_person(canvas, make_stranger(rng), random_pose(rng), view)


# --------------------------------------------------------------------------------------------------------- occluders
def draw_occluder(canvas: Canvas, rng: np.random.Generator, person: np.ndarray, max_cover: float) -> None:
    """Paint one thing in front of the person that covers at most a share `max_cover` of it, or nothing if none fits.

    Args:
        canvas: has the person drawn on it.
        rng: the generator of this image.
        person: (2, H, W) bool, the person's samples.
        max_cover: in [0, 1].
    """
    rows, columns = np.flatnonzero(person.any(axis=(0, 2))), np.flatnonzero(person.any(axis=(0, 1)))
    extent = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    kind = _OCCLUDERS[rng.integers(len(_OCCLUDERS))]
    before, state = canvas.labels(), canvas.snapshot()
    for _ in range(ATTEMPTS):
        kind(canvas, rng, extent)
        covered = (canvas.labels() != before) & person
        if covered.sum() <= max_cover * person.sum():
            return
        canvas.restore(state)
        state = canvas.snapshot()


def _pole(canvas: Canvas, rng: np.random.Generator, extent: Box) -> None:
    x = rng.uniform(extent[0], extent[2])
    radius = rng.uniform(0.012, 0.03) * canvas.height
    metal = _thing((0.40, 0.42, 0.43), 0.45, float(rng.uniform(-0.05, 0.15)), roughness=0.03)
    canvas.add(*box(x - radius, -2, x + radius, canvas.height + 2), metal)


def _bush(canvas: Canvas, rng: np.random.Generator, extent: Box) -> None:
    x0, y0, x1, y1 = extent
    x, tall = rng.choice([x0, x1]) + rng.uniform(-0.15, 0.25) * (x1 - x0), rng.uniform(0.20, 0.45) * (y1 - y0)
    heart = np.array([x, y1 + 0.1 * tall])
    canvas.add(*ellipse(heart, (0.7 * tall, 0.9 * tall)), _thing((0.08, 0.16, 0.06), 0.40, 0.02))
    angles, reach = rng.uniform(0, 2 * np.pi, LEAVES), np.sqrt(rng.uniform(0, 1, LEAVES))
    for angle, out, shade in zip(angles, reach, rng.uniform(0.5, 1.2, LEAVES), strict=True):
        centre = heart + np.array([0.65 * np.cos(angle), 0.85 * np.sin(angle)]) * out * tall
        leaf = _thing((0.22 * shade, 0.40 * shade, 0.14 * shade), 0.72 * shade, 0.03, relief=0.3, roughness=0.12)
        canvas.add(*ellipse(centre, (0.15 * tall, 0.11 * tall)), leaf)


def _car(canvas: Canvas, rng: np.random.Generator, extent: Box) -> None:
    """Draw the bonnet of a car that stands between the camera and the person."""
    x0, y0, x1, y1 = extent
    top = y1 - rng.uniform(0.10, 0.34) * (y1 - y0)
    if rng.random() < 0.5:
        left, right = x0 - 2 * canvas.width, rng.uniform(x0 + 0.4 * (x1 - x0), x1)
    else:
        left, right = rng.uniform(x0, x1 - 0.4 * (x1 - x0)), x1 + 2 * canvas.width
    bulge, floor = 0.04 * canvas.height, canvas.height + 2
    bonnet = [(left, top + bulge), (left + bulge, top), (right - bulge, top), (right, top + bulge)]
    canvas.add(*patch([*bonnet, (right, floor), (left, floor)]), _cloth_like(rng, 0.1))
    seam = _thing((0.12, 0.12, 0.13), 0.15, 0.2, relief=0.0)
    canvas.add(*box(left, top + 1.8 * bulge, right, top + 2.2 * bulge), seam)


def _bin(canvas: Canvas, rng: np.random.Generator, extent: Box) -> None:
    x0, y0, x1, y1 = extent
    x, wide = rng.uniform(x0, x1), rng.uniform(0.16, 0.26) * (y1 - y0)
    top = y1 - rng.uniform(0.22, 0.42) * (y1 - y0)
    body = [(x - 0.5 * wide, top), (x + 0.5 * wide, top), (x + 0.42 * wide, y1 + 3), (x - 0.42 * wide, y1 + 3)]
    surface = _cloth_like(rng, 0.7)
    canvas.add(*patch(body), surface)
    rim = np.array([x - 0.5 * wide, top]), np.array([x + 0.5 * wide, top])
    canvas.add(*capsule(*rim, 0.09 * wide, 0.09 * wide), Surface(surface.values * 0.7, relief=0.5))


def _pedestrian(canvas: Canvas, rng: np.random.Generator, extent: Box) -> None:
    """Draw somebody who walks by at the side, nearer to the camera."""
    x0, y0, x1, y1 = extent
    tall = rng.uniform(1.0, 1.2) * (y1 - y0)
    x = rng.choice([x0 - 0.10 * tall, x1 + 0.10 * tall]) + rng.uniform(-0.08, 0.08) * tall
    view = View(float(rng.uniform(-np.pi, np.pi)), 0.15, 0.0, float(tall), (float(x), float(y1 + 0.05 * tall)))
    draw_person(canvas, make_stranger(rng), random_pose(rng), view)


_OCCLUDERS: tuple[Callable[[Canvas, np.random.Generator, Box], None], ...] = (_pole, _bush, _car, _bin, _pedestrian)
