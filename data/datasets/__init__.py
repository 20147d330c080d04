"""List the data sets by name. A new one needs a description in a file of its own and an entry here."""

from __future__ import annotations

from data.datasets.base import DataSet
from data.datasets.listing import NEEDS_NOTHING
from data.datasets.manifest import MANIFEST
from data.datasets.msvr310 import MSVR310
from data.datasets.rgbnt100 import RGBNT100
from data.datasets.rgbnt201 import RGBNT201
from data.datasets.synthetic import SYNTHETIC
from data.datasets.wmveid863 import WMVEID863
from utils.errors import UserError

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        RGBNT201,
        RGBNT100,
        MSVR310,
        WMVEID863,
        MANIFEST,
        SYNTHETIC,
    )
}


def find_dataset(name: str) -> DataSet:
    """Return the data set called `name`, ignoring letter case.

    Raises:
        UserError: no data set has this name.
    """
    for known, dataset in DATASETS.items():
        if known.lower() == name.lower():
            return dataset
    raise UserError(
        f"DATASETS.NAMES is {name!r}, which is not a data set. Allowed: {', '.join(DATASETS)}. {NEEDS_NOTHING}"
    )
