"""A picture is a stack of labelled parts: polygons painted over each other, each with a frame and a surface.

The frame of a part is the affine map from pixels to its own coordinates: u runs across from -1 to 1, and v runs
along from 0 to 1. Shading and textures are functions of (u, v), so that they follow limbs and turn with the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLE = 2
MAX_LABELS = 255  # labels are bytes, and 0 is the background
ARC = np.linspace(0, np.pi, 7)


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface is what a part is made of."""

    values: np.ndarray
    """(2, NUM_CHANNELS): first and second colour."""
    fields: np.ndarray | None = None
    """(modalities, 8): where each modality shows the second colour; None means nowhere."""
    relief: float = 1.0
    """1 shades the part as a cylinder along v, and 0 leaves it flat."""
    roughness: float = 0.06
    """Relative amplitude of wrinkles, leaves and the like (`texture.py` has the second colour)."""


class Canvas:
    """A canvas holds parts in the order of painting, and the label map that they give.

    Coordinates are pixels of the final image; the map is drawn SUPERSAMPLE times as fine.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.frames: list[np.ndarray] = [np.zeros((2, 3))]  # label 0 is the background
        self.yaws: list[float] = [0.0]
        self.surfaces: list[Surface | None] = [None]
        self._image = Image.new("L", (width * SUPERSAMPLE, height * SUPERSAMPLE), 0)

    def add(self, polygon: np.ndarray, frame: np.ndarray, surface: Surface, yaw: float = 0.0) -> None:
        """Paint one part over the earlier ones.

        Args:
            polygon: (K, 2) x, y in pixels.
            frame: (2, 3) affine map from (x, y, 1) to (u, v).
            surface: its material.
            yaw: radians from the camera at which the part's front (s = 0) lies on the screen.
        """
        if len(self.surfaces) > MAX_LABELS:
            raise RuntimeError(f"a canvas holds at most {MAX_LABELS} parts")
        points = (polygon * SUPERSAMPLE).ravel().tolist()
        ImageDraw.Draw(self._image).polygon(points, fill=len(self.surfaces))
        self.frames.append(frame)
        self.yaws.append(yaw)
        self.surfaces.append(surface)

    def labels(self) -> np.ndarray:
        """Return the label map (2, H, W) uint8: two samples of each pixel, on its diagonal."""
        fine = np.asarray(self._image)
        return np.stack([fine[i::SUPERSAMPLE, i::SUPERSAMPLE] for i in range(SUPERSAMPLE)])

    def snapshot(self) -> tuple[Image.Image, int]:
        """Return the state, to `restore` it after parts have been painted on trial."""
        return self._image.copy(), len(self.surfaces)

    def restore(self, state: tuple[Image.Image, int]) -> None:
        """Go back to a snapshot."""
        self._image, count = state
        del self.frames[count:], self.yaws[count:], self.surfaces[count:]


Outline = tuple[np.ndarray, np.ndarray]
"""An outline is a polygon (K, 2) in pixels and its frame (2, 3), the first two arguments of `Canvas.add`."""


def capsule(start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float) -> Outline:
    """Outline a tapered limb from one joint to the next; points and radii are in pixels."""
    radius = max(start_radius, end_radius)
    axis = end - start
    length = max(float(np.hypot(*axis)), 0.3 * radius)  # a limb that points at the camera is a disc
    direction = np.arctan2(axis[1], axis[0])
    angles = np.concatenate([direction + np.pi / 2 + ARC, direction - np.pi / 2 + ARC])
    radii = np.repeat([start_radius, end_radius], len(ARC))[:, None]
    centres = np.repeat([start, end], len(ARC), axis=0)
    outline = centres + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along = np.array([np.cos(direction), np.sin(direction)])
    across = np.array([along[1], -along[0]])  # to the right of the screen when the limb hangs down
    return outline, _frame(start, across / radius, along / length)


def tube(centres: np.ndarray, half_widths: np.ndarray, sag: float = 0.0) -> Outline:
    """Outline a trunk or garment by its cross-sections, top to bottom.

    Args:
        centres: (L, 2) pixels.
        half_widths: (L,) pixels.
        sag: how far the middle of the lower hem hangs below its ends, seen from above; pixels.
    """
    offset = np.stack([half_widths, np.zeros_like(half_widths)], axis=1)
    hem = centres[-1] + [[0.55 * half_widths[-1], 0.85 * sag], [-0.55 * half_widths[-1], 0.85 * sag]]
    outline = np.concatenate([centres + offset, hem, (centres - offset)[::-1]])
    axis = centres[-1] - centres[0]
    length = max(float(axis[1]), 1e-3)
    # The axis across is level, however the trunk leans: u = (x - centre line) / half width.
    across = np.array([1.0, -axis[0] / length]) / half_widths.max()
    return outline, _frame(centres[0], across, np.array([0.0, 1 / length]))


def ellipse(centre: np.ndarray, radii: Sequence[float]) -> Outline:
    """Outline an ellipse with upright axes."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
    return outline, _frame(centre - [0, radii[1]], np.array([1 / radii[0], 0]), np.array([0, 0.5 / radii[1]]))


def patch(outline: Sequence[Sequence[float]]) -> Outline:
    """Outline any polygon, with the frame of its bounding box."""
    points = np.asarray(outline, dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum(high - low, 1e-3)
    return points, _frame([(low[0] + high[0]) / 2, low[1]], np.array([2 / size[0], 0]), np.array([0, 1 / size[1]]))


def box(x0: float, y0: float, x1: float, y1: float) -> Outline:
    """Outline a rectangle with upright sides."""
    return patch([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _frame(origin: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    linear = np.stack([across, along])
    return np.concatenate([linear, -(linear @ np.asarray(origin, dtype=float))[:, None]], axis=1)
