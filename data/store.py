"""Decoded images: every file is read once, resized and kept as bytes in one memory-mapped array, shared by all runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from data.records import MODALITIES, Sample
from utils.errors import UserError

FORMAT_VERSION = 1
RESAMPLING = Image.Resampling.BICUBIC


class ImageStore:
    """Pixels of a list of samples.

    Args:
        images: (N, M, 3, H, W) uint8; zeros where a modality is absent.
        present: (N, M) bool.
    """

    def __init__(self, images: Tensor, present: np.ndarray) -> None:
        self.images = images
        self.present = present

    def gather(self, index: Tensor) -> Tensor:
        """A copy of the images at `index` (B,): (B, M, 3, H, W) uint8."""
        return self.images.index_select(0, index.to(self.images.device, non_blocking=True))

    def to(self, device: torch.device) -> ImageStore:
        """The same store with its pixels on `device`."""
        return ImageStore(self.images.to(device), self.present)


def open_store(
    samples: Sequence[Sample], *, size_hw: tuple[int, int], cache_dir: Path | None, workers: int
) -> ImageStore:
    """The decoded images of `samples`, from `cache_dir` if they are there, else decoded now.

    The file is found by a hash of the files' names, sizes and times, the image size and the interpolation, so a changed
    data set is decoded anew. It is written under a temporary name and renamed: two runs that build it at once both end
    with a whole one.

    Args:
        size_hw: height and width to resize to, bicubic.
        cache_dir: None decodes into memory and writes nothing.
        workers: threads that decode.

    Raises:
        UserError: an image is missing or cannot be decoded, or `cache_dir` cannot be written.
    """
    present = np.array([[path is not None for path in sample.paths] for sample in samples])
    shape = (len(samples), len(MODALITIES), 3, *size_hw)
    if cache_dir is None:
        images = np.zeros(shape, np.uint8)
        _decode_all(samples, images, workers)
        return ImageStore(torch.from_numpy(images), present)

    path = cache_dir / f"{_key(samples, size_hw)}.npy"
    images = _open(path, shape)
    if images is None:
        _build(path, samples, shape, workers)
        images = _open(path, shape)
    assert images is not None, f"{path} was written and cannot be read"
    return ImageStore(torch.from_numpy(images), present)


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in `path`; None if there is none of that shape and length."""
    try:
        images = np.load(path, mmap_mode="c")  # copy on write: torch warns of memory that it may not write to
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _build(path: Path, samples: Sequence[Sample], shape: tuple[int, ...], workers: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            # A full disk must fail here: in a sparse mapped file it would kill the process later.
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            os.posix_fallocate(file.fileno(), start, int(np.prod(shape)))
        images = np.memmap(temporary, np.uint8, "r+", offset=start, shape=shape)
        _decode_all(samples, images, workers)
        images.flush()
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"The decoded images ({int(np.prod(shape)) / 2**20:.0f} MiB) cannot be written to {path.parent}: "
            f"{error.strerror}. Set DATALOADER.CACHE_DIR to a folder with room, or DATALOADER.CACHE: off to "
            "decode into "
            "memory."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _key(samples: Sequence[Sample], size_hw: tuple[int, int]) -> str:
    """A hash that changes with anything that would change a pixel."""
    digest = hashlib.sha256(f"{FORMAT_VERSION} {size_hw} {RESAMPLING.name}".encode())
    for sample in samples:
        for path in sample.paths:
            stat = _stat(path) if path is not None else None
            described = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}" if stat else "-"
            digest.update(f"{described} {sample.tiled}\n".encode())
    return digest.hexdigest()[:24]


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _decode_all(samples: Sequence[Sample], images: np.ndarray, workers: int) -> None:
    """Fill `images` (N, M, 3, H, W); the first file that cannot be read ends it."""

    def decode(i: int) -> None:
        images[i] = decode_sample(samples[i], images.shape[-2:])

    pool = ThreadPoolExecutor(workers)
    try:
        bar = tqdm(total=len(samples), desc="decode images", unit="img", leave=False, dynamic_ncols=True)
        with bar:
            for _ in pool.map(decode, range(len(samples))):
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def decode_sample(sample: Sample, size_hw: tuple[int, int]) -> np.ndarray:
    """The images of a sample, (M, 3, H, W) uint8, resized; zeros where a modality is absent.

    Raises:
        UserError: a file is missing, truncated, or no image; it is named.
    """
    pixels = np.zeros((len(sample.paths), 3, *size_hw), np.uint8)
    if sample.tiled:
        whole = _read(sample.paths[0])
        width = whole.width // len(sample.paths)
        tiles = [whole.crop((m * width, 0, (m + 1) * width, whole.height)) for m in range(len(sample.paths))]
    else:
        tiles = [None if path is None else _read(path) for path in sample.paths]
    for m, tile in enumerate(tiles):
        if tile is not None:
            pixels[m] = np.asarray(tile.resize(size_hw[::-1], RESAMPLING)).transpose(2, 0, 1)
    return pixels


def _read(path: Path) -> Image.Image:
    """An image file as upright 8-bit RGB, whatever its mode."""
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits a pixel
                upright = Image.fromarray((np.asarray(upright, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        reason = "there is no such file"
    elif isinstance(error, UnidentifiedImageError):
        reason = f"it is no image ({path.stat().st_size} bytes)"
    else:
        reason = " ".join(str(error).split())
    return UserError(f"The image {path} cannot be read: {reason}. Copy it anew, or take it and its pair out of the data set.")
