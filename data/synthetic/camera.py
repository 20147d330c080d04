"""Describe a camera, and turn the signals that reach its three sensors into images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from data.synthetic.conditions import Conditions
from data.synthetic.identity import CHANNELS
from data.synthetic.spec import Stream, rng_for

YAWS = (-0.45, 1.15, 2.75, -1.75)  # radians: the direction in which most people walk past each camera
CASTS = ((1.06, 1.00, 0.92), (0.90, 1.02, 1.08), (1.00, 0.97, 1.06), (1.10, 1.00, 0.82))
CLARITY = (0.95, 0.70, 0.85, 0.60)  # resolution as a share of the image's
AMBIENT = (0.16, 0.28, 0.22, 0.36)  # on a scale where bare skin is near 1
TI_RESOLUTION = (0.50, 0.42, 0.46, 0.38)
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Camera:
    """These constants describe one camera."""

    yaw: float
    """Radians: the angle to which most people who pass are turned (see person.View)."""
    elevation: float
    """Radians above the horizon."""
    light_angle: float
    """Radians: the side from which daylight falls."""
    cast: tuple[float, float, float]
    saturation: float
    clarity: float
    noise: float
    """Standard deviation of RGB and NI, on a scale of 0 to 1."""
    ni_gain: float
    ni_vignette: float
    """How much darker the corners of the lamp's spot are."""
    ambient: float
    """The grey level of the surroundings in TI, on a scale of 0 to 1."""
    ti_resolution: float


@lru_cache(maxsize=16)
def make_camera(seed: int, number: int, difficulty: float) -> Camera:
    """Make camera number `number` of a set; the difficulty decides how much the cameras differ."""
    rng, kind = rng_for(seed, Stream.CAMERA, number), number % len(YAWS)
    apart = 0.35 + 0.65 * difficulty
    cast = 1 + apart * (np.array(CASTS[kind]) - 1 + rng.uniform(-0.05, 0.05, 3))
    return Camera(
        yaw=YAWS[kind] + float(rng.uniform(-0.2, 0.2)),
        elevation=float(rng.uniform(0.06, 0.30)),
        light_angle=float(rng.uniform(-1.0, 1.0)),
        cast=tuple(float(gain) for gain in cast),
        saturation=1 - apart * float(rng.uniform(0.0, 0.35)),
        clarity=1 - apart * (1 - CLARITY[kind]),
        noise=(0.4 + difficulty) * float(rng.uniform(0.010, 0.022)),
        ni_gain=1 + apart * float(rng.uniform(-0.22, 0.12)),
        ni_vignette=apart * float(rng.uniform(0.15, 0.45)),
        ambient=0.22 + apart * (AMBIENT[kind] - 0.22),
        ti_resolution=TI_RESOLUTION[kind],
    )


def capture(
    signal: np.ndarray, camera: Camera, conditions: Conditions, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the three images that the camera delivers: (H, W, 3) uint8 RGB, (H, W) uint8 NI and TI.

    Args:
        signal: (H, W, C) float32, from `render`.
        camera: the camera's constants.
        conditions: faults and blur.
        rng: the generator of this image.
    """
    develop = {"RGB": _visible, "NI": _near_infrared, "TI": _thermal}
    return {name: develop[name](signal[..., channels], camera, conditions, rng) for name, channels in CHANNELS.items()}


def _visible(light: np.ndarray, camera: Camera, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    grey = np.einsum("hwc,c->hw", light, GREY)
    gain = rng.uniform(0.85, 1.12) * np.array(camera.cast, np.float32) * (1 + 0.02 * rng.standard_normal(3))
    colours = (grey[..., None] + camera.saturation * (light - grey[..., None])) * gain.astype(np.float32)
    picture = _optics(colours, camera.clarity, conditions)
    noise = camera.noise
    if conditions.darkness:
        night = 0.17 - 0.12 * conditions.darkness
        picture = picture * (night * np.array([0.9, 0.95, 1.15], np.float32)) + 0.015
        noise = 0.022
    if conditions.glare:
        flare = _flare(picture.shape[:2], rng)[..., None] * np.array([1.0, 0.97, 0.88], np.float32)
        picture = picture * (1 - 0.75 * conditions.glare) + conditions.glare * (0.42 + 0.9 * flare)
    return _digitise(picture, noise, rng)


def _near_infrared(light: np.ndarray, camera: Camera, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    height, width = light.shape[:2]
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    spot = 1 - camera.ni_vignette * np.minimum(0.45 * (rows**2 + columns**2), 1)
    gain = camera.ni_gain * rng.uniform(0.88, 1.10)
    picture = _optics(light[..., 0] * (gain * spot).astype(np.float32), camera.clarity, conditions)
    noise = 1.2 * camera.noise
    if conditions.out_of_reach:
        picture = picture * (0.09 - 0.07 * conditions.out_of_reach) + 0.02
        noise = 0.022
    if conditions.glare:
        picture = picture * (1 - 0.25 * conditions.glare) + 0.35 * conditions.glare * _flare((height, width), rng)
    return _digitise(picture, noise, rng)


def _thermal(warmth: np.ndarray, camera: Camera, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    height, width = warmth.shape[:2]
    ambient = camera.ambient + rng.uniform(-0.03, 0.03)
    span = (0.97 - ambient) * rng.uniform(0.90, 1.04)
    picture = ambient + span * warmth[..., 0]
    noise = 0.012 + 0.3 * camera.noise
    if conditions.crossover:
        # What little contrast is left is lifted by the automatic gain, and the noise with it.
        warm = 0.55 + rng.uniform(-0.08, 0.08)
        picture = warm + (0.10 - 0.085 * conditions.crossover) * (picture - picture.mean())
        noise = 0.035
    # The sensor is coarse: the picture is blurred and binned, gets noise by pixel and by column, and is scaled up.
    coarse = (max(2, round(width * camera.ti_resolution)), max(2, round(height * camera.ti_resolution)))
    image = Image.fromarray(_to_bytes(picture)).filter(ImageFilter.GaussianBlur(height / 256))
    binned = np.asarray(image.resize(coarse, Image.Resampling.BOX), np.float32) / 255
    binned = binned + 0.35 * noise * rng.standard_normal((1, coarse[0]), dtype=np.float32)
    scaled = Image.fromarray(_digitise(binned, noise, rng)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(_smear(scaled, conditions))


def _optics(picture: np.ndarray, clarity: float, conditions: Conditions) -> np.ndarray:
    """Apply lens, resolution and motion, which act before the sensor's noise; float32 in and out."""
    height, width = picture.shape[:2]
    image = Image.fromarray(_to_bytes(picture))
    share = clarity * conditions.sharpness
    if share < 1:
        small = (max(2, round(width * share)), max(2, round(height * share)))
        image = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(_smear(image, conditions), np.float32) / 255


def _smear(image: Image.Image, conditions: Conditions) -> Image.Image:
    """Blur along the rows, as motion does."""
    length = round(conditions.motion * image.height)
    return image.filter(ImageFilter.BoxBlur((length / 2, 0))) if length else image


def _flare(size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a light in the lens with its halo and a horizontal streak: (H, W) float32, about 1 at its centre."""
    height, width = size_hw
    y, x = rng.uniform(0.15, 0.75) * height, rng.uniform(0.1, 0.9) * width
    rows, columns = np.ogrid[:height, :width]
    halo = np.exp(-np.hypot((rows - y) / (0.35 * height), (columns - x) / (0.35 * height)), dtype=np.float32)
    streak = np.exp(-np.abs(rows - y) / (0.02 * height), dtype=np.float32)
    return halo + 0.4 * streak


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _digitise(picture: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return _to_bytes(picture + noise * rng.standard_normal(picture.shape, dtype=np.float32))
