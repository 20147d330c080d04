"""Render labelled parts as the three aligned signals, before any camera has touched them.

Shapes: H, W image; C the channels of a surface (see identity.py); S samples per pixel; n foreground samples.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data.synthetic.canvas import Canvas
from data.synthetic.identity import CHANNELS, NUM_CHANNELS
from data.synthetic.texture import second_colour, wrap_angle

NOISE_SIDE = 256  # pixels; a power of two


def render(canvas: Canvas, background: np.ndarray, light_angle: float) -> np.ndarray:
    """Return the signals (H, W, C) float32 of a canvas: reflected light in RGB and NI, warmth in TI.

    Args:
        canvas: the parts.
        background: (H, W, C) float32, visible where there is no part.
        light_angle: radians; daylight comes from the camera at 0 and from the right of the screen at positive angles.
    """
    labels = canvas.labels()
    out = np.empty((*labels.shape, NUM_CHANNELS), np.float32)
    out[:] = background
    foreground = np.flatnonzero(labels)
    out.reshape(-1, NUM_CHANNELS)[foreground] = _surface_signal(canvas, labels, foreground, light_angle)
    return out.mean(axis=0)


def _surface_signal(canvas: Canvas, labels: np.ndarray, foreground: np.ndarray, light_angle: float) -> np.ndarray:
    """Return the signal (n, C) of the foreground samples."""
    label = labels.ravel()[foreground]
    x, y = _pixel_grid(*labels.shape)
    x, y = x[foreground], y[foreground]
    frames = np.stack(canvas.frames).reshape(-1, 6).astype(np.float32)
    ux, uy, u0, vx, vy, v0 = (column[label] for column in np.ascontiguousarray(frames.T))
    u = np.clip(ux * x + uy * y + u0, -0.999, 0.999)
    v = vx * x + vy * y + v0
    angle = np.arcsin(u)  # of the surface's normal on the screen
    s = wrap_angle(angle - np.array(canvas.yaws, np.float32)[label])

    surfaces = canvas.surfaces[1:]
    values = np.stack([surface.values for surface in surfaces]).astype(np.float32)  # (P, 2, C)
    values = np.concatenate([np.zeros_like(values[:1]), values])
    signal = values[label, 0]
    has_fields = np.array([False] + [surface.fields is not None for surface in surfaces])
    chosen = np.flatnonzero(has_fields[label])
    if len(chosen):
        fields = np.zeros((len(has_fields), len(CHANNELS), 8), np.float32)
        fields[has_fields] = [surface.fields for surface in surfaces if surface.fields is not None]
        second = values[label[chosen], 1]
        for modality, channels in enumerate(CHANNELS.values()):
            shows = second_colour(fields[label[chosen], modality], s[chosen], v[chosen])
            signal[chosen[shows], channels] = second[shows, channels]

    relief = np.array([0.0] + [surface.relief for surface in surfaces], np.float32)[label]
    roughness = np.array([0.0] + [surface.roughness for surface in surfaces], np.float32)[label]
    folds = roughness * _noise_tile()[_wrap(28 * s + 37 * label), _wrap(70 * v)]
    # Daylight falls from one side; the near-infrared lamp sits at the camera. Both leave the edges of a limb dark.
    day = 1.05 * (1 - relief * (1 - np.maximum(np.cos(angle - light_angle), 0)) * 0.75)
    lamp = 1.05 * (1 - relief * (1 - np.cos(angle)) * 0.70)
    signal[:, CHANNELS["RGB"]] *= (day * (1 + folds))[:, None]
    signal[:, CHANNELS["NI"]] *= (lamp * (1 + 0.7 * folds))[:, None]
    # Surfaces seen at a grazing angle emit less; folds keep warmth.
    signal[:, CHANNELS["TI"]] *= (1 - 0.22 * relief * u**4 + 0.8 * folds)[:, None]
    return signal


def _wrap(position: np.ndarray) -> np.ndarray:
    return position.astype(np.int32) & (NOISE_SIDE - 1)


@lru_cache(maxsize=4)
def _pixel_grid(samples: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, (S H W) float32, of the samples on each pixel's diagonal; pixel centres are at .5."""
    offset = ((np.arange(samples) + 0.5) / samples)[:, None, None]
    x = np.arange(width) + offset
    y = np.arange(height)[:, None] + offset
    shape = (samples, height, width)
    return tuple(np.broadcast_to(axis, shape).astype(np.float32).ravel() for axis in (x, y))


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """Return (NOISE_SIDE, NOISE_SIDE) float32 smooth noise of unit variance that tiles."""
    return smooth_noise(np.random.default_rng(0), (NOISE_SIDE, NOISE_SIDE), scale=6.0)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Draw periodic Gaussian noise (H, W) float32 of unit variance; `scale` is its grain in pixels."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    damping = np.exp(-0.5 * (rows**2 + columns**2) * (2 * np.pi * scale / 2) ** 2)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * damping, s=shape)
    noise -= noise.mean()
    return (noise / noise.std()).astype(np.float32)
