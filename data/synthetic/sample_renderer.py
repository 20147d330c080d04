"""Draw one sample from its key: who is seen by which camera and when. Everything random about it is decided here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.synthetic.camera import Camera, capture, make_camera
from data.synthetic.canvas import Canvas
from data.synthetic.conditions import Conditions, draw_conditions
from data.synthetic.identity import make_identity
from data.synthetic.obstacles import MAX_COVER, draw_clutter, draw_occluder, random_pose
from data.synthetic.person import View, draw_person
from data.synthetic.render import render
from data.synthetic.scenery import NUM_CAMERAS, cast_shadow, cut_background
from data.synthetic.spec import Stream, SyntheticSpec, rng_for

SPLITS = ("train", "test")
CAMERAS = {"train": NUM_CAMERAS, "test": 2}
OCCLUSION_RATE = 0.8  # share of images, at difficulty 1
WIDEST = 0.38  # The feet stand at most this far from the centre, in widths, so that most of the body is in the image.
CLUTTER = 4  # largest number of things in the background


@dataclass(frozen=True, eq=False)
class RenderedSample:
    """A rendered sample is one person seen once."""

    images: dict[str, np.ndarray]
    """Maps each modality to its image: (H, W, 3) uint8 for RGB, (H, W) uint8 for NI and TI."""
    mask: np.ndarray
    """(H, W) uint8: 255 where the person or the bag is visible, else 0."""
    conditions: Conditions
    covered: float
    """Share of the person that an occluder hides."""


def identity_cameras(seed: int, split: str, index: int) -> list[int]:
    """Return the cameras, counted from 0, that see identity `index` in turns.

    Both cameras of the test split see all its identities; a training identity has 2 to 4 cameras.
    """
    if split == "test":
        return list(range(CAMERAS[split]))
    rng = rng_for(seed, Stream.VISIT, SPLITS.index(split), index)
    # The first camera changes with the identity, so that even a small set has images of every camera.
    return [(index + offset) % NUM_CAMERAS for offset in range(int(rng.integers(2, NUM_CAMERAS + 1)))]


def make_sample(
    spec: SyntheticSpec, split: str, index: int, number: int, *, conditions: Conditions | None = None
) -> RenderedSample:
    """Draw image `number` of identity `index`, as a function of the arguments alone.

    Args:
        spec: only its seed, size, difficulty and off_centre matter here.
        split: 'train' or 'test'.
        index: identity within the split, from 0.
        number: image of that identity, from 0; its camera is `identity_cameras(...)[number % len]`.
        conditions: replace the random ones; everything else stays as it is.
    """
    key = (SPLITS.index(split), index)
    cameras = identity_cameras(spec.seed, split, index)
    camera_number = cameras[number % len(cameras)]
    camera = make_camera(spec.seed, camera_number, spec.difficulty)
    identity = make_identity(spec.seed, *key)
    rng = rng_for(spec.seed, Stream.IMAGE, *key, number)
    drawn = draw_conditions(rng, spec.difficulty)
    conditions = drawn if conditions is None else conditions

    height, width = spec.size_hw
    visit = rng_for(spec.seed, Stream.VISIT, *key, camera_number)
    view = _draw_view(spec, camera, visit, rng)
    background = cut_background(spec.seed, camera_number, spec.size_hw, rng)
    cast_shadow(background, view.foot, view.height, strength=float(rng.uniform(0.2, 0.55)))

    canvas = Canvas(height, width)
    draw_clutter(canvas, rng, count=int(rng.binomial(CLUTTER, 0.15 + 0.5 * spec.difficulty)))
    first = len(canvas.surfaces)
    draw_person(canvas, identity, random_pose(rng), view)
    person = canvas.labels() >= first
    last = len(canvas.surfaces)
    if rng.random() < OCCLUSION_RATE * spec.difficulty and person.any():
        draw_occluder(canvas, rng, person, max_cover=MAX_COVER * (0.4 + 0.6 * spec.difficulty))

    labels = canvas.labels()
    seen = (labels >= first) & (labels < last)
    images = capture(render(canvas, background, camera.light_angle), camera, conditions, rng)
    mask = np.where(seen.mean(axis=0) >= 0.5, np.uint8(255), np.uint8(0))
    return RenderedSample(images, mask, conditions, covered=1 - float(seen.sum()) / max(1, int(person.sum())))


def _draw_view(spec: SyntheticSpec, camera: Camera, visit: np.random.Generator, rng: np.random.Generator) -> View:
    """Draw the viewpoint from the camera, the direction of this visit and what changes from image to image."""
    height, width = spec.size_hw
    away = np.pi if visit.random() < 0.35 else 0.0  # the other way along the same path
    yaw = camera.yaw + away + visit.normal(0, 0.35) + rng.normal(0, 0.30)
    # A good detector's boxes fit; a bad one's do not.
    tall = height * rng.uniform(0.84 - 0.30 * spec.difficulty, 0.91)
    foot_y = tall + (height - tall) * rng.uniform(0.35, 0.95)
    aside = 0.04 + 0.14 * spec.difficulty
    aside += spec.off_centre * (WIDEST - aside)
    foot_x = width * (0.5 + rng.uniform(-1, 1) * aside)
    return View(
        yaw=float(yaw),
        elevation=camera.elevation,
        roll=float(rng.normal(0, 0.03)),
        height=float(tall),
        foot=(float(foot_x), float(foot_y)),
    )
