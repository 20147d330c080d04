"""The data sets by name: how to list each, by which protocol it is scored, how many images it should have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.datasets import manifest, msvr310, rgbnt100, rgbnt201, wmveid863
from data.datasets.listing import Scan
from data.sample import Sample
from utils.errors import UserError

Counts = Mapping[str, int | str]
"""Figures of a split by name: 'ids', 'triplets', 'cameras', 'per camera'."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set as the rest of the program knows it."""

    name: str
    parse: Callable[[Path], dict[str, list[Sample]]]
    """Root to samples by split ('train', 'query', 'gallery'); no pixel is read."""
    scan: Callable[[Path], Scan]
    """The same with problems collected, for tools.check_data."""
    protocol: Literal["camera", "scene"]
    """A query ignores the gallery images of its own identity from the same one of these."""
    expected: Mapping[str, Counts] | None
    """What a complete copy holds, by split, where that is published."""
    source: str
    """Where to get it."""


_RGBNT201_TEST = {"ids": 30, "triplets": 836, "cameras": 2, "per camera": "365 / 471"}

_INFOS = (
    DatasetInfo(
        name="RGBNT201",
        parse=rgbnt201.parse,
        scan=rgbnt201.scan,
        protocol="camera",
        expected={
            "train": {"ids": 171, "triplets": 3951, "cameras": 4, "per camera": "2592 / 1142 / 88 / 129"},
            "query": _RGBNT201_TEST,
            "gallery": _RGBNT201_TEST,
        },
        source=rgbnt201.SOURCE,
    ),
    DatasetInfo(
        name="RGBNT100",
        parse=rgbnt100.parse,
        scan=rgbnt100.scan,
        protocol="camera",
        expected={
            "train": {"ids": 50, "triplets": 8675, "cameras": 8},
            "query": {"triplets": 1715},
            "gallery": {"ids": 50, "triplets": 8575},
        },
        source=rgbnt100.SOURCE,
    ),
    DatasetInfo(
        name="MSVR310",
        parse=msvr310.parse,
        scan=msvr310.scan,
        protocol="scene",
        expected={
            "train": {"ids": 155, "triplets": 1032},
            "query": {"ids": 52, "triplets": 591},
            "gallery": {"ids": 155, "triplets": 1055},
        },
        source=msvr310.SOURCE,
    ),
    DatasetInfo(
        name="WMVeID863",
        parse=wmveid863.parse,
        scan=wmveid863.scan,
        protocol="camera",
        expected=None,
        source=wmveid863.SOURCE,
    ),
    DatasetInfo(
        name="manifest",
        parse=manifest.parse,
        scan=manifest.scan,
        protocol="camera",
        expected=None,
        source="a CSV file of your own, see the README",
    ),
)
DATASETS: Mapping[str, DatasetInfo] = {info.name: info for info in _INFOS}


def find_dataset(name: str) -> DatasetInfo:
    """The data set called `name`, in any letter case.

    Raises:
        UserError: there is none.
    """
    for info in DATASETS.values():
        if info.name.lower() == name.lower():
            return info
    raise UserError(
        f"DATASETS.NAMES is {name!r}, which is no data set. There are {', '.join(DATASETS)}, and synthetic, which is "
        "generated and needs no download."
    )
