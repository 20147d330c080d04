"""Decode every image of a split once into an array of bytes, in memory or in one memory-mapped file.

A batch is then an index operation. The file's name is a hash of what it was made from, so that changed images,
another size or another list of samples never get an old file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.loading.decode import INTERPOLATION, decode_sample, missing_file
from data.sample import MODALITIES, Sample
from utils.errors import UserError
from utils.files import atomic_write
from utils.progress import progress_bar

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # Part of the hash: raise it when the same files would decode to other bytes.
TEMPORARY_NAME = re.compile(r"\.\d+x\d+_[0-9a-f]{24}\.npy\.\d+\.[0-9a-f]{8}\.tmp")  # as `atomic_write` makes them
ABANDONED_AFTER_S = 3600  # A killed process left a temporary file that has not been written to for this long.
GIB = 2**30


@dataclass(frozen=True)
class ImageStore:
    """A store holds the decoded images of N samples."""

    images: np.ndarray
    """(N, M, 3, H, W) uint8; a read-only memory map where the store is a file."""
    present: np.ndarray
    """(N, M) bool; False where a modality is absent and its pixels are 0."""
    path: Path | None = None
    """The file that is mapped, if the images are not in memory."""

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Any, ...]]:
        """Pickle a file's path, not its bytes, so that worker processes that are not forked map the same file."""
        if self.path is None:
            return ImageStore, (self.images, self.present)
        return _reopen, (self.path, self.present)


def _reopen(path: Path, present: np.ndarray) -> ImageStore:
    return ImageStore(np.lib.format.open_memmap(path, mode="r"), present, path)


def open_store(
    samples: Sequence[Sample], *, size_hw: tuple[int, int], cache_dir: Path | None, workers: int
) -> ImageStore:
    """Return the decoded images of `samples` in their order.

    Args:
        samples: one or more distinct samples.
        size_hw: height and width in pixels to which every image is resized.
        cache_dir: folder of the memory-mapped file, which is made if it does not exist or is damaged; None decodes
            into memory.
        workers: threads that decode.

    Raises:
        UserError: an image is missing or broken, or the file cannot be written.
    """
    present = np.array([[path is not None for path in sample.paths] for sample in samples])
    shape = (len(samples), len(MODALITIES), 3, *size_hw)
    if cache_dir is None:
        images = np.empty(shape, np.uint8)
        _decode_all(samples, size_hw, workers=workers, write=images.__setitem__)
        return ImageStore(images, present)
    path = cache_dir / f"{_fingerprint(samples, size_hw)}.npy"
    images = _open_valid(path, shape)
    if images is None:
        _build(path, samples, shape, workers=workers)
        images = np.lib.format.open_memmap(path, mode="r")
    return ImageStore(images, present, path)


def _fingerprint(samples: Sequence[Sample], size_hw: tuple[int, int]) -> str:
    """Hash all that the decoded bytes depend on: names, sizes and times of the files, and the image size."""
    files = {path: os.path.abspath(path) for sample in samples for path in sample.paths if path is not None}
    # Names are relative to their common folder, so that a data set may be moved.
    base = len(os.path.commonpath([os.path.dirname(name) for name in files.values()]))
    described = {None: None}
    for path, name in files.items():
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise missing_file(path) from error
        described[path] = (name[base:], status.st_size, status.st_mtime_ns)
    key = hashlib.sha256(repr((FORMAT_VERSION, size_hw, INTERPOLATION.name)).encode())
    for sample in samples:
        key.update(repr((sample.tiled, [described[path] for path in sample.paths])).encode())
    return f"{size_hw[0]}x{size_hw[1]}_{key.hexdigest()[:24]}"


def _open_valid(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map the file at `path`; return None if it does not exist or is not a whole array of `shape`."""
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception:  # A damaged header makes numpy raise nearly anything.
        logger.info("%s is damaged and will be rebuilt.", path)
        return None
    whole = images.shape == shape and images.dtype == np.uint8 and images.flags.c_contiguous
    if not whole or path.stat().st_size != images.offset + images.nbytes:
        logger.info("%s does not hold what it should and will be rebuilt.", path)
        return None
    return images


def _build(path: Path, samples: Sequence[Sample], shape: tuple[int, ...], *, workers: int) -> None:
    """Decode into a temporary file and rename it, so that several processes may build the same file at once.

    The file is written, not mapped, because on a full disk a write raises an error but a mapped array crashes.
    """
    num_bytes = int(np.prod(shape))
    start = time.perf_counter()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        if shutil.disk_usage(path.parent).free < num_bytes:
            raise OSError("the disk has too little space")
        with atomic_write(path, "wb", unique=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            offset, lock = file.tell(), threading.Lock()

            def write(index: int, pixels: np.ndarray) -> None:
                with lock:
                    file.seek(offset + index * pixels.nbytes)
                    file.write(pixels)

            _decode_all(samples, shape[-2:], workers=workers, write=write)
    except OSError as error:
        raise UserError(
            f"The decoded images ({num_bytes / GIB:.2f} GiB) cannot be stored in {path.parent}: "
            f"{error.strerror or error}. Set DATALOADER.CACHE_DIR to a writable folder with enough space, or "
            "DATALOADER.CACHE: off to decode into memory at every start."
        ) from error
    logger.info(
        "Decoded %d samples into %s (%.2f GiB) in %.1f s.",
        len(samples), path, num_bytes / GIB, time.perf_counter() - start,
    )  # fmt: skip


def _remove_abandoned(folder: Path) -> None:
    """Delete the half-written files of killed processes."""
    for temporary in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):  # another process may have removed it by now
            age = time.time() - temporary.stat().st_mtime
            if TEMPORARY_NAME.fullmatch(temporary.name) and age > ABANDONED_AFTER_S:
                temporary.unlink()


def _decode_all(
    samples: Sequence[Sample],
    size_hw: tuple[int, int],
    *,
    workers: int,
    write: Callable[[int, np.ndarray], None],
) -> None:
    """Decode every sample, in any order, in a pool of threads (Pillow's decoders release the interpreter lock).

    After the first error no further sample is started.
    """

    def work(index: int) -> None:
        write(index, decode_sample(samples[index], size_hw))

    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(work, index) for index in range(len(samples))]
        done = as_completed(futures)
        for future in progress_bar(done, "decode", len(futures), unit="sample"):
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
