"""The data sets by name: how to list them and by which protocol they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data import rgbnt201
from data.records import Sample
from utils.errors import UserError


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that can be named in DATASETS.NAMES."""

    name: str
    parse: Callable[[Path], dict[str, list[Sample]]]
    protocol: str
    """'camera' or 'scene': a query ignores the gallery images of its own identity seen by the same one."""


DATASETS = {info.name.lower(): info for info in (DatasetInfo("RGBNT201", rgbnt201.parse, "camera"),)}


def find_dataset(name: str) -> DatasetInfo:
    """The data set called `name`, in any case.

    Raises:
        UserError: there is none.
    """
    info = DATASETS.get(name.lower())
    if info is None:
        known = ", ".join(["synthetic", *(info.name for info in DATASETS.values())])
        raise UserError(f"DATASETS.NAMES is {name!r}. Allowed: {known}.")
    return info
