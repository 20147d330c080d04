"""RGBNT201 (Zheng et al., AAAI 2021): persons, one folder per split and modality, paired by file name."""

from __future__ import annotations

import re
from pathlib import Path

from data.listing import bad_name, find_root, list_paired
from data.records import MODALITIES, Sample

TRAIN, TEST = "train_171", "test"
NAME = re.compile(r"(\d{6})_cam(\d+)_(\d+)_(\d+)\.\w+")
HOW_TO_GET = "RGBNT201 is given out by its authors on request (see README, Data and weights)."


def parse(root: Path) -> dict[str, list[Sample]]:
    """The splits under `root` (or `root`/RGBNT201); query and gallery are both the test folder.

    Raises:
        UserError: a folder is missing, an image lacks a modality, or a name cannot be read.
    """
    root = find_root(Path(root), names=("RGBNT201",), contains=TRAIN, how_to_get=HOW_TO_GET)
    test = _parse_split(root / TEST)
    return {"train": _parse_split(root / TRAIN), "query": test, "gallery": test}


def _parse_split(folder: Path) -> list[Sample]:
    masks = folder / "MASK"  # the synthetic set knows where the person is
    has_masks = masks.is_dir()
    samples = []
    for name in list_paired([folder / modality for modality in MODALITIES]):
        match = NAME.fullmatch(name)
        if match is None:
            raise bad_name(folder / MODALITIES[0] / name, "<6 digits>_cam<n>_<flag>_<n>", "000028_cam1_0_02.jpg")
        samples.append(
            Sample(
                paths=tuple(folder / modality / name for modality in MODALITIES),
                pid=int(match[1]),
                camera=int(match[2]) - 1,
                mask=masks / f"{Path(name).stem}.png" if has_masks else None,
            )
        )
    return samples
