"""WMVeID863: vehicles under glare, 863 identities (Zheng et al., arXiv:2305.13659).

Layout: {train,query,test}/<id>/{vis,ni,th}/*.jpg, the same file name in the three folders. The name holds the camera
as v<digit> and whether it was night as n<digit>; the identity is the folder's number.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.datasets.listing import NO_IMAGES, Scan, find_root, pair_by_id_folder
from data.sample import Sample

SOURCE = "it is given out by its authors (Zheng et al., arXiv:2305.13659), see the README"

SPLITS = {"train": "train", "query": "query", "gallery": "test"}
MODALITY_FOLDERS = ("vis", "ni", "th")
CAMERA, NIGHT = re.compile(r"v(\d)"), re.compile(r"n(\d)")
BAD_NAME = "file(s) without v<digit> (the camera) in the name"
BAD_FOLDER = "file(s) in a folder that is not named by the identity's number"


def parse(root: Path) -> dict[str, list[Sample]]:
    """List the data set in `root`, the folder that holds `train`, `query` and `test`, or the one above it.

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
    found = Scan("WMVeID863", find_root(root, ("WMVeID863",), markers, title="WMVeID863", source=SOURCE))
    found.splits = {name: _scan_split(found, found.root / folder) for name, folder in SPLITS.items()}
    return found


def _scan_split(found: Scan, split: Path) -> list[Sample]:
    """The samples of one split; `scene` is the night flag, which the protocol does not need (0 without one)."""
    samples = []
    for id_folder, paths in pair_by_id_folder(found, split, MODALITY_FOLDERS):
        camera, night = (pattern.search(paths[0].stem) for pattern in (CAMERA, NIGHT))
        if camera is None:
            found.report(BAD_NAME, paths[0])
        elif re.fullmatch(r"[0-9]+", id_folder.name) is None:
            found.report(BAD_FOLDER, paths[0])
        else:
            scene = int(night[1]) if night else 0
            samples.append(Sample(paths, pid=int(id_folder.name), camera=int(camera[1]), scene=scene))
    if not samples and split.is_dir():
        found.report(NO_IMAGES, split)
    return samples
