"""Decode image files into 8-bit RGB pixels at the model's input size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.sample import MODALITIES, Sample
from utils.errors import UserError

INTERPOLATION = Image.Resampling.BICUBIC
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow before 11 opens a PNG of 16 bits as 'I'.


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file in full to RGB and turn it upright as its EXIF orientation says.

    Grey is repeated in the three channels, 16 bits are scaled to 8 (65535 becomes 255), and alpha is dropped.

    Raises:
        UserError: the file is missing, empty, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in SIXTEEN_BIT_MODES:
                return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
            if image.mode == "F":
                raise ValueError("floating-point pixels have no fixed range; convert it to 8 or 16 bits")
            if image.mode == "P":  # convert("RGB") would warn about a transparent entry of the palette
                image = image.convert("RGBA")
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise UserError(
            f"The image {path} ({_describe_size(path)}) cannot be decoded: {error or type(error).__name__}. Copy it "
            "again from the data set's archive."
        ) from error


def missing_file(path: Path) -> UserError:
    """Return the error for an image file that a data set lists but that does not exist."""
    return UserError(f"The image {path} is missing. Restore it, or remove its sample from the data set.")


def _describe_size(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "not a file"


def _to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale (H, W) grey values 0..65535 to 0..255, rounded to the nearest."""
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ValueError("32-bit pixels have no fixed range; convert it to 8 or 16 bits")
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decode_sample(sample: Sample, size_hw: tuple[int, int]) -> np.ndarray:
    """Decode a sample's images and resize them (bicubic): (M, 3, H, W) uint8; an absent modality is 0.

    Raises:
        UserError: see `read_rgb`; or the width of a tiled file is not a multiple of three.
    """
    height, width = size_hw
    pixels = np.zeros((len(MODALITIES), 3, height, width), np.uint8)
    if sample.tiled:
        images = _cut_tiles(sample.paths[0])
    else:
        images = [None if path is None else read_rgb(path) for path in sample.paths]
    for modality, image in enumerate(images):
        if image is not None:
            resized = image.resize((width, height), INTERPOLATION)
            pixels[modality] = np.asarray(resized).transpose(2, 0, 1)
    return pixels


def _cut_tiles(path: Path) -> list[Image.Image]:
    """Cut one file into the three images that lie in it side by side, in the order of MODALITIES."""
    image = read_rgb(path)
    width, rest = divmod(image.width, len(MODALITIES))
    if rest:
        raise UserError(
            f"The image {path} is {image.width} pixels wide, which is not {len(MODALITIES)} equal tiles "
            f"({', '.join(MODALITIES)} side by side). Copy it again from the data set's archive."
        )
    return [image.crop((i * width, 0, (i + 1) * width, image.height)) for i in range(len(MODALITIES))]
