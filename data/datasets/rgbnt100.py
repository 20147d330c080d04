"""RGBNT100 shows vehicles, with 50 identities to train on and 50 to test on (Li et al., AAAI 2020).

The layout is rgbir/{bounding_box_train,query,bounding_box_test}/0548_c0002_000.jpg. One image holds the three
modalities side by side, RGB | NI | TI. The name gives the identity, the camera counted from 1 and a running number.
The queries are copies of gallery images.
"""

import re

from data.datasets.base import FolderDataSet

RGBNT100 = FolderDataSet(
    name="RGBNT100",
    source="from its authors (Li et al., AAAI 2020), see the README",
    protocol="camera",
    expected={
        "train": {"ids": 50, "samples": 8675, "cameras": 8},
        "query": {"samples": 1715},
        "gallery": {"ids": 50, "samples": 8575},
    },
    root_names=("RGBNT100", "rgbir"),
    splits={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    file_name=re.compile(r"(\d+)_c0*([1-9]\d*)(_.+)?"),
    bad_name="file(s) not named like 0548_c0002_000.jpg",
    read_name=lambda match, _: {"pid": int(match[1]), "camera": int(match[2]) - 1},
)
