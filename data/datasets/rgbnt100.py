"""RGBNT100: vehicles, 50 identities to train and 50 to test (Li et al., AAAI 2020).

Layout: rgbir/{bounding_box_train,query,bounding_box_test}/0548_c0002_000.jpg, one image that holds the three
modalities side by side, RGB | NI | TI; identity, camera counted from 1, a running number. The queries are copies of
gallery images.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.datasets.listing import NO_IMAGES, Scan, find_root, list_images
from data.sample import MODALITIES, Sample

SOURCE = "it is given out by its authors (Li et al., AAAI 2020), see the README"

SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
FILE_NAME = re.compile(r"(\d+)_c0*([1-9]\d*)(_.+)?")
BAD_NAME = "file(s) not named like 0548_c0002_000.jpg"


def parse(root: Path) -> dict[str, list[Sample]]:
    """List the data set in `root`, the folder `rgbir` or one above it.

    Raises:
        UserError: the data set is not there, or a file is badly named.
    """
    return scan(root).checked()


def scan(root: Path) -> Scan:
    """As `parse`, with whatever is wrong with the tree collected instead of raised.

    Raises:
        UserError: the data set is not there.
    """
    names = ("RGBNT100", "rgbir")
    found = Scan("RGBNT100", find_root(root, names, tuple(SPLITS.values()), title="RGBNT100", source=SOURCE))
    found.splits = {name: _scan_split(found, found.root / folder) for name, folder in SPLITS.items()}
    return found


def _scan_split(found: Scan, split: Path) -> list[Sample]:
    if not found.has_folder(split):
        return []
    samples = []
    for name in list_images(split):
        path = split / name
        match = FILE_NAME.fullmatch(path.stem)
        if match is None:
            found.report(BAD_NAME, path)
            continue
        paths = (path,) * len(MODALITIES)
        samples.append(Sample(paths, pid=int(match[1]), camera=int(match[2]) - 1, tiled=True))
    if not samples:
        found.report(NO_IMAGES, split)
    return samples
