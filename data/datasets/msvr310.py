"""MSVR310: vehicles, 155 identities to train and 155 to test (Zheng et al., Information Fusion 2023).

Layout: {bounding_box_train,query3,bounding_box_test}/<id>/{vis,ni,th}/0001_s001_v0_000.jpg, the same file name in the
three folders: identity, scene, view (0 to 7), a running number. A query ignores gallery images of its own identity
and *scene*.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.datasets.listing import NO_IMAGES, Scan, find_root, pair_by_id_folder
from data.sample import Sample

SOURCE = "it is given out by its authors (Zheng et al., Information Fusion 2023), see the README"

SPLITS = {"train": "bounding_box_train", "query": "query3", "gallery": "bounding_box_test"}
MODALITY_FOLDERS = ("vis", "ni", "th")
FILE_NAME = re.compile(r"(\d{4})_s(\d{3})_v(\d)(_.+)?")
BAD_NAME = "file(s) not named like 0001_s001_v0_000.jpg"


def parse(root: Path) -> dict[str, list[Sample]]:
    """List the data set in `root`, the folder that holds `bounding_box_train`, or the one above it.

    Raises:
        UserError: the data set is not there, or a file is unpaired or badly named.
    """
    return scan(root).checked()


def scan(root: Path) -> Scan:
    """As `parse`, with whatever is wrong with the tree collected instead of raised.

    Raises:
        UserError: the data set is not there.
    """
    markers = tuple(SPLITS.values())
    found = Scan("MSVR310", find_root(root, ("MSVR310",), markers, title="MSVR310", source=SOURCE))
    found.splits = {name: _scan_split(found, found.root / folder) for name, folder in SPLITS.items()}
    return found


def _scan_split(found: Scan, split: Path) -> list[Sample]:
    samples = []
    for _, paths in pair_by_id_folder(found, split, MODALITY_FOLDERS):
        match = FILE_NAME.fullmatch(paths[0].stem)
        if match is None:
            found.report(BAD_NAME, paths[0])
            continue
        samples.append(Sample(paths, pid=int(match[1]), camera=int(match[3]), scene=int(match[2])))
    if not samples and split.is_dir():
        found.report(NO_IMAGES, split)
    return samples
