"""Paint what a camera sees when nobody passes: a wide backdrop in the three modalities, from which images are cut.

Lengths are in units of the image height; y runs down from the top of the backdrop. Materials are (red, green, blue,
near-infrared reflectance, warmth), as in identity.py.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.synthetic.identity import CHANNELS, NUM_CHANNELS, UPPER_RGB
from data.synthetic.render import smooth_noise
from data.synthetic.spec import Stream, rng_for

NUM_CAMERAS = 4
HEIGHT, WIDTH = 1.12, 3.2  # size of a backdrop
SMOOTH, GRAINY, LEAFY = 0.02, 0.07, 0.30  # relative amplitude of a material's grain

Material = tuple[float, float, float, float, float]


class _Backdrop:
    """Paint materials into a label map."""

    def __init__(self, pixels_high: int) -> None:
        self.unit = pixels_high
        self.size = (round(WIDTH * pixels_high), round(HEIGHT * pixels_high))
        self.image = Image.new("I", self.size, 0)
        self.draw = ImageDraw.Draw(self.image)
        self.materials: list[Material] = [(0.5, 0.5, 0.5, 0.5, 0.0)]
        self.roughnesses: list[float] = [SMOOTH]

    def add(self, material: Material, roughness: float) -> int:
        self.materials.append(material)
        self.roughnesses.append(roughness)
        return len(self.materials) - 1

    def rect(self, x0: float, y0: float, x1: float, y1: float, material: Material, roughness: float = SMOOTH) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], material, roughness)

    def poly(self, points: list[tuple[float, float]], material: Material, roughness: float = SMOOTH) -> None:
        self.draw.polygon([(x * self.unit, y * self.unit) for x, y in points], fill=self.add(material, roughness))

    def blob(self, x: float, y: float, rx: float, ry: float, material: Material, roughness: float = LEAFY) -> None:
        box = [(x - rx) * self.unit, (y - ry) * self.unit, (x + rx) * self.unit, (y + ry) * self.unit]
        self.draw.ellipse(box, fill=self.add(material, roughness))

    def ground_lines(self, horizon: float, spacing: float, width: float, material: Material) -> None:
        """Paint the joints of a paved ground in perspective: level ones, and ones that meet at the horizon."""
        depth = 1.0
        while (y := horizon + (HEIGHT - horizon) / depth) > horizon + 0.03:
            self.rect(0, y, WIDTH, y + width / depth, material)
            depth += 0.35
        for foot in np.arange(-WIDTH, 2 * WIDTH, spacing):
            top = WIDTH / 2 + (foot - WIDTH / 2) * 0.25
            self.poly([(top, horizon), (top + width * 0.2, horizon), (foot + width, HEIGHT), (foot, HEIGHT)], material)

    def finish(self, rng: np.random.Generator) -> np.ndarray:
        """Return (H, W, NUM_CHANNELS) float32 with the grain of the materials and a little of the air's blur."""
        label = np.asarray(self.image)
        values = np.array(self.materials, np.float32)[label]
        roughness = np.array(self.roughnesses, np.float32)[label]
        shape, pixel = label.shape, self.unit / 256
        grain = 0.7 * smooth_noise(rng, shape, 2.2 * pixel) + 0.5 * smooth_noise(rng, shape, 9 * pixel)
        light = 1 + 0.08 * smooth_noise(rng, shape, 60 * pixel)
        values[..., :4] *= ((1 + roughness * grain) * light)[..., None]
        values[..., 4] += 0.04 * smooth_noise(rng, shape, 30 * pixel) + 0.25 * roughness * grain
        soft = [_blurred(values[..., channel], 0.6 * pixel) for channel in range(NUM_CHANNELS)]
        return np.stack(soft, axis=-1)


def _blurred(plane: np.ndarray, radius: float) -> np.ndarray:
    """Blur a plane as bytes, because PIL blurs nothing else; half a grey level is far below the sensors' noise."""
    low, high = float(plane.min()), float(plane.max()) + 1e-6
    image = Image.fromarray(np.uint8(255 * (plane - low) / (high - low)))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return low + soft / 255 * (high - low)


def _street(canvas: _Backdrop, rng: np.random.Generator) -> None:
    """Paint a shop front and its pavement."""
    wall = (0.72, 0.62, 0.50, 0.55, 0.12)
    canvas.rect(0, 0, WIDTH, 0.5, wall, GRAINY)
    for x in np.arange(-0.1, WIDTH, 0.62):
        canvas.rect(x, 0.05, x + 0.36, 0.36, (0.85, 0.82, 0.75, 0.70, 0.10))
        glass = rng.uniform(0.10, 0.30)
        canvas.rect(x + 0.02, 0.07, x + 0.34, 0.34, (glass, glass + 0.05, glass + 0.10, 0.10, -0.06), SMOOTH)
        for _ in range(3):  # what the shop window shows
            left, top = x + rng.uniform(0.03, 0.25), rng.uniform(0.14, 0.24)
            colour = UPPER_RGB[rng.integers(len(UPPER_RGB))]
            canvas.rect(left, top, left + 0.07, 0.33, (*(0.7 * c for c in colour), rng.uniform(0.1, 0.6), -0.04))
        canvas.rect(x + 0.178, 0.07, x + 0.186, 0.34, (0.80, 0.78, 0.72, 0.65, 0.08))
        canvas.rect(x + 0.42, 0.02, x + 0.56, 0.5, (0.36, 0.24, 0.18, 0.40, 0.16), GRAINY)  # a door
    canvas.rect(0, 0.44, WIDTH, 0.50, (0.42, 0.38, 0.36, 0.35, 0.16), GRAINY)
    canvas.rect(0, 0.50, WIDTH, HEIGHT, (0.60, 0.58, 0.56, 0.48, 0.18), GRAINY)
    canvas.ground_lines(0.50, 0.24, 0.008, (0.46, 0.44, 0.43, 0.38, 0.15))


def _park(canvas: _Backdrop, rng: np.random.Generator) -> None:
    """Paint trees, a lawn and a gravel path; leaves are bright in the near infrared."""
    canvas.rect(0, 0, WIDTH, 0.5, (0.20, 0.30, 0.17, 0.62, 0.02), LEAFY)
    for _ in range(90):
        shade = rng.uniform(0.5, 1.3)
        leaf = (0.24 * shade, 0.42 * shade, 0.16 * shade, min(0.95, 0.70 * shade), 0.02)
        canvas.blob(rng.uniform(0, WIDTH), rng.uniform(0, 0.34), rng.uniform(0.04, 0.12), rng.uniform(0.03, 0.08), leaf)
    for x in np.cumsum(rng.uniform(0.25, 0.7, 8)):
        canvas.rect(x, 0.12, x + rng.uniform(0.03, 0.06), 0.47, (0.27, 0.20, 0.15, 0.36, 0.08), GRAINY)
    canvas.rect(0, 0.45, WIDTH, 0.66, (0.34, 0.50, 0.20, 0.80, 0.05), LEAFY)
    edge = [(x, 0.64 + 0.02 * np.sin(5 * x)) for x in np.linspace(0, WIDTH, 40)]
    canvas.poly([*edge, (WIDTH, HEIGHT), (0, HEIGHT)], (0.66, 0.60, 0.50, 0.55, 0.14), GRAINY)


def _car_park(canvas: _Backdrop, rng: np.random.Generator) -> None:
    """Paint parked cars on marked asphalt; those that were driven are warm."""
    canvas.rect(0, 0, WIDTH, 0.12, (0.74, 0.81, 0.90, 0.55, -0.25))
    canvas.rect(0, 0.10, WIDTH, 0.30, (0.50, 0.47, 0.46, 0.42, 0.08), GRAINY)
    for x in np.arange(0.04, WIDTH, 0.16):
        canvas.rect(x, 0.13, x + 0.09, 0.20, (0.22, 0.26, 0.31, 0.15, -0.02))
    canvas.rect(0, 0.28, WIDTH, HEIGHT, (0.35, 0.35, 0.37, 0.24, 0.20), GRAINY)
    for x in np.arange(-0.4, WIDTH, 0.66):
        paint = (*UPPER_RGB[rng.integers(len(UPPER_RGB))], rng.uniform(0.2, 0.75), 0.10)
        warm = float(rng.choice([0.08, 0.34]))
        canvas.poly([(x, 0.46), (x, 0.37), (x + 0.14, 0.35), (x + 0.21, 0.26), (x + 0.41, 0.26), (x + 0.49, 0.35),
                     (x + 0.58, 0.38), (x + 0.58, 0.46)], paint)  # fmt: skip
        canvas.poly([(x, 0.37), (x + 0.14, 0.355), (x + 0.14, 0.42), (x, 0.44)], (*paint[:4], warm))  # bonnet
        canvas.poly([(x + 0.17, 0.35), (x + 0.22, 0.275), (x + 0.40, 0.275), (x + 0.45, 0.35)],
                    (0.14, 0.17, 0.20, 0.10, -0.05))  # fmt: skip
        for wheel in (x + 0.11, x + 0.47):
            canvas.blob(wheel, 0.46, 0.05, 0.05, (0.07, 0.07, 0.07, 0.10, 0.24), SMOOTH)
    for x in np.arange(-WIDTH, 2 * WIDTH, 0.55):
        top = WIDTH / 2 + (x - WIDTH / 2) * 0.6
        canvas.poly([(top, 0.55), (top + 0.018, 0.55), (x + 0.05, HEIGHT), (x, HEIGHT)], (0.85, 0.85, 0.82, 0.75, 0.16))


def _hall(canvas: _Backdrop, rng: np.random.Generator) -> None:
    """Paint a station hall: panels, posters, columns and a tiled floor."""
    canvas.rect(0, 0, WIDTH, 0.5, (0.70, 0.74, 0.76, 0.60, 0.10))
    for x in np.arange(0, WIDTH, 0.4):
        canvas.rect(x, 0, x + 0.006, 0.5, (0.50, 0.54, 0.56, 0.45, 0.09))
    for x in np.arange(0.06, WIDTH, 0.4):
        colour = UPPER_RGB[rng.integers(len(UPPER_RGB))]
        canvas.rect(x, 0.10, x + 0.22, 0.36, (0.25, 0.25, 0.27, 0.30, 0.14))
        canvas.rect(x + 0.01, 0.11, x + 0.21, 0.35, (*colour, rng.uniform(0.2, 0.8), rng.choice([0.12, 0.30])))
        second = UPPER_RGB[rng.integers(len(UPPER_RGB))]
        canvas.rect(x + 0.03, 0.22, x + 0.19, 0.32, (*second, rng.uniform(0.2, 0.8), 0.14))
    for x in np.arange(0.30, WIDTH, 0.8):
        canvas.rect(x, 0, x + 0.075, 0.53, (0.56, 0.60, 0.60, 0.66, 0.08), GRAINY)
    canvas.rect(0, 0.46, WIDTH, 0.50, (0.28, 0.31, 0.34, 0.30, 0.12))
    canvas.rect(0, 0.50, WIDTH, HEIGHT, (0.74, 0.72, 0.68, 0.50, 0.13))
    canvas.ground_lines(0.50, 0.30, 0.006, (0.58, 0.56, 0.53, 0.40, 0.12))
    for x in np.arange(0.1, WIDTH, 0.5):  # lamps in the polished floor
        canvas.poly([(x, 0.52), (x + 0.08, 0.52), (x + 0.03, 0.80), (x - 0.02, 0.80)], (0.84, 0.82, 0.78, 0.56, 0.13))


_PLACES = (_street, _park, _car_park, _hall)


@lru_cache(maxsize=2 * NUM_CAMERAS)
def backdrop(seed: int, camera: int, pixels_high: int) -> np.ndarray:
    """Return the scene of camera number `camera` for images that high: (H, W, NUM_CHANNELS) float32, read-only."""
    rng = rng_for(seed, Stream.CAMERA, camera, 1)
    canvas = _Backdrop(pixels_high)
    _PLACES[camera % len(_PLACES)](canvas, rng)
    picture = canvas.finish(rng)
    picture.setflags(write=False)
    return picture


def cut_background(seed: int, camera: int, size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Copy a random window of the camera's scene: (H, W, NUM_CHANNELS) float32."""
    height, width = size_hw
    whole = backdrop(seed, camera, height)
    if width > whole.shape[1]:  # a scene that is too narrow is repeated
        whole = np.tile(whole, (1, -(-width // whole.shape[1]), 1))
    top = int(rng.integers(whole.shape[0] - height + 1))
    left = int(rng.integers(whole.shape[1] - width + 1))
    return whole[top : top + height, left : left + width].copy()


def cast_shadow(background: np.ndarray, foot: tuple[float, float], height: float, strength: float) -> None:
    """Darken the ground, in place, where a person of that height (pixels) stands; a shadow leaves warmth unchanged."""
    across = np.exp(-(((np.arange(background.shape[1]) - foot[0]) / (0.20 * height)) ** 2))
    down = np.exp(-(((np.arange(background.shape[0]) - foot[1]) / (0.045 * height)) ** 2))
    rows = np.flatnonzero(down > 0.01)
    shade = 1 - strength * np.outer(down[rows], across).astype(np.float32)
    background[rows, :, : CHANNELS["TI"].start] *= shade[..., None]
