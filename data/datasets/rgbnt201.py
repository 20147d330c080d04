"""RGBNT201: persons, 171 identities to train and 30 to test (Zheng et al., AAAI 2021).

Layout: {train_171,test}/{RGB,NI,TI}/000028_cam1_0_02.jpg, the same file name in the three folders: identity, camera
counted from 1, a sequence flag, a running number. Query and gallery are the same folder, `test`. A folder MASK beside
the modalities (the synthetic set has one) holds <stem>.png: where the person is.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.datasets.listing import NO_IMAGES, Scan, find_root, pair_by_name
from data.sample import MODALITIES, Sample

SOURCE = "it is given out by its authors on request (Zheng et al., AAAI 2021), see the README"

TRAIN, TEST = "train_171", "test"
MASK = "MASK"
FILE_NAME = re.compile(r"(\d{6})_cam([1-9]\d*)_.+")
BAD_NAME = "file(s) not named like 000028_cam1_0_02.jpg"
NO_MASK = "triplet(s) without a mask"


def parse(root: Path) -> dict[str, list[Sample]]:
    """List the data set in `root`, the folder that holds `train_171` and `test`, or the one above it.

    Raises:
        UserError: the data set is not there, or a file is unpaired or badly named.
    """
    return scan(root).checked()


def scan(root: Path) -> Scan:
    """As `parse`, with whatever is wrong with the tree collected instead of raised.

    Raises:
        UserError: the data set is not there.
    """
    found = Scan("RGBNT201", find_root(root, ("RGBNT201",), (TRAIN, TEST), title="RGBNT201", source=SOURCE))
    train, test = (_scan_split(found, found.root / split) for split in (TRAIN, TEST))
    found.splits = {"train": train, "query": test, "gallery": list(test)}
    return found


def _scan_split(found: Scan, split: Path) -> list[Sample]:
    if not found.has_folder(split):
        return []
    has_masks = (split / MASK).is_dir()
    samples = []
    for paths in pair_by_name(found, [split / modality for modality in MODALITIES]):
        match = FILE_NAME.fullmatch(paths[0].stem)
        if match is None:
            found.report(BAD_NAME, paths[0])
            continue
        mask = split / MASK / f"{paths[0].stem}.png" if has_masks else None
        if mask is not None and not mask.is_file():
            found.report(NO_MASK, paths[0])
            mask = None
        samples.append(Sample(paths, pid=int(match[1]), camera=int(match[2]) - 1, mask=mask))
    if not samples:
        found.report(NO_IMAGES, split)
    return samples
