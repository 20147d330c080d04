"""Write a synthetic set to disk once, in RGBNT201's layout, whole or not at all.

<root>/<name from the spec>/spec.json
<root>/<name from the spec>/{train_171,test}/{RGB,NI,TI}/000028_cam1_0_02.jpg
<root>/<name from the spec>/{train_171,test}/MASK/000028_cam1_0_02.png      where the person is visible
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.synthetic.identity import CHANNELS
from data.synthetic.sample_renderer import SPLITS, RenderedSample, identity_cameras, make_sample
from data.synthetic.spec import SyntheticSpec
from utils.errors import UserError

SPLIT_FOLDERS = {"train": "train_171", "test": "test"}
MASK_FOLDER = "MASK"
SUFFIXES = dict.fromkeys(CHANNELS, ".jpg") | {MASK_FOLDER: ".png"}
"""Maps the folders of a split to the suffix of their files."""
SPEC_FILE = "spec.json"
JPEG_QUALITY = 90

Task = tuple[str, int]
"""A task names the split and the identity within it that a worker writes in one go."""


def ensure_synthetic(root: Path, spec: SyntheticSpec, *, workers: int) -> Path:
    """Return the folder of the set that `spec` describes, and generate the set if it does not exist.

    The set is written to a temporary folder, which is renamed when it is complete, so that a folder of that name is
    always whole. If another process was faster, its result is used. The bytes do not depend on `workers`.

    Args:
        root: folder that holds the data sets (DATASETS.ROOT_DIR); made if missing.
        spec: what to generate.
        workers: processes; 0 generates in this one.

    Raises:
        UserError: `root` cannot be written to, or the disk is full.
    """
    root = Path(root)
    folder = root / spec.folder_name
    if is_complete(folder, spec):
        return folder
    with _explained(root, spec):
        root.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        try:
            building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
            _generate(building, spec, workers)
            _publish(building, folder, spec)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def is_complete(folder: Path, spec: SyntheticSpec) -> bool:
    """Return whether `folder` holds that set with all its files; no image is read."""
    try:
        if json.loads((folder / SPEC_FILE).read_text()) != spec.as_json():
            return False
        for split, subfolder in SPLIT_FOLDERS.items():
            stems = [stem for index in range(spec.num_ids(split)) for stem in file_stems(spec, split, index)]
            for kind, suffix in SUFFIXES.items():
                if not {stem + suffix for stem in stems} <= set(os.listdir(folder / subfolder / kind)):
                    return False
    except (OSError, ValueError):
        return False
    return True


def file_stems(spec: SyntheticSpec, split: str, index: int) -> list[str]:
    """Return the file names without suffix of a split's identity `index`; test identities follow those of training."""
    identity = 1 + index + (spec.train_ids if split == "test" else 0)
    cameras = identity_cameras(spec.seed, split, index)
    numbers = range(spec.num_images(split, index))
    return [f"{identity:06d}_cam{cameras[number % len(cameras)] + 1}_0_{number:02d}" for number in numbers]


def _generate(folder: Path, spec: SyntheticSpec, workers: int) -> None:
    for subfolder in SPLIT_FOLDERS.values():
        for kind in SUFFIXES:
            (folder / subfolder / kind).mkdir(parents=True)
    tasks = [(split, index) for split in SPLITS for index in range(spec.num_ids(split))]
    total = spec.train_images + spec.test_images
    with tqdm(total=total, desc="Generating the synthetic set", unit="sample") as bar:
        for written in _run(folder, spec, tasks, workers):
            bar.update(written)
    (folder / SPEC_FILE).write_text(json.dumps(spec.as_json(), indent=2) + "\n")


def _run(folder: Path, spec: SyntheticSpec, tasks: list[Task], workers: int) -> Iterator[int]:
    """Do the tasks, in this process or in several, and yield the numbers of samples written."""
    if workers == 0:
        for task in tasks:
            yield _write_identity(folder, spec, task)
        return
    pool = ProcessPoolExecutor(min(workers, len(tasks)), initializer=_leave_interrupts_to_the_parent)
    try:
        jobs = [pool.submit(_write_identity, folder, spec, task) for task in tasks]
        for job in as_completed(jobs):
            yield job.result()
    finally:  # after an error or an interrupt no further task is started
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_identity(folder: Path, spec: SyntheticSpec, task: Task) -> int:
    split, index = task
    stems = file_stems(spec, split, index)
    for number, stem in enumerate(stems):
        write_sample(make_sample(spec, split, index, number), folder / SPLIT_FOLDERS[split], stem)
    return len(stems)


def write_sample(sample: RenderedSample, folder: Path, stem: str) -> None:
    """Write three JPEGs of three channels, like RGBNT201's, and the mask."""
    for name, pixels in sample.images.items():
        image = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        _write_image(image, folder / name / (stem + SUFFIXES[name]), format="JPEG", quality=JPEG_QUALITY)
    _write_image(sample.mask, folder / MASK_FOLDER / (stem + SUFFIXES[MASK_FOLDER]), format="PNG", compress_level=1)


def _write_image(pixels: np.ndarray, path: Path, **encoding: str | int) -> None:
    # The image is encoded in memory, because PIL hides the reason when the file system refuses a write.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **encoding)
    path.write_bytes(buffer.getbuffer())


def _publish(building: Path, folder: Path, spec: SyntheticSpec) -> None:
    """Give the finished folder its final name."""
    try:
        building.rename(folder)
        return
    except OSError:
        if is_complete(folder, spec):  # another process was faster
            return
        if not folder.exists():
            raise
    # The name is taken by something that is not the whole set, such as a folder whose files were deleted.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(aside / "incomplete")
        building.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _explained(root: Path, spec: SyntheticSpec) -> Iterator[None]:
    """Turn an error of the operating system into one that names the keys to change."""
    try:
        yield
    except OSError as error:
        where = error.filename or root
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            megabytes = (spec.train_images + spec.test_images) * spec.size_hw[0] * spec.size_hw[1] * 1.2e-6
            raise UserError(
                f"The disk is full: the synthetic set could not be written to {where}. It needs about {megabytes:.0f} "
                "MB. Free some space, point DATASETS.ROOT_DIR at another disk, or ask for less "
                "(SYNTHETIC.TRAIN_IMAGES, SYNTHETIC.TEST_IMAGES, SYNTHETIC.SIZE)."
            ) from error
        raise UserError(
            f"The synthetic set could not be written to {where}: {error.strerror or error}. Point DATASETS.ROOT_DIR "
            "at a folder that can be written to."
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            "A process that was generating the synthetic set died, most likely for lack of memory. Set "
            "DATALOADER.NUM_WORKERS lower; 0 generates in the main process."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
