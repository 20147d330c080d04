"""RGBNT201 shows persons, with 171 identities to train on and 30 to test on (Zheng et al., AAAI 2021).

The layout is {train_171,test}/{RGB,NI,TI}/000028_cam1_0_02.jpg, where the name gives the identity, the camera counted
from 1, a sequence flag and a running number. Query and gallery are the same folder. A folder MASK, which the synthetic
set has, says where the person is.
"""

import re

from data.datasets.base import FolderDataSet
from data.sample import MODALITIES

TEST_COUNTS = {"ids": 30, "samples": 836, "cameras": 2, "per camera": "365 / 471"}

RGBNT201 = FolderDataSet(
    name="RGBNT201",
    source="from its authors on request (Zheng et al., AAAI 2021), see the README",
    protocol="camera",
    expected={
        "train": {"ids": 171, "samples": 3951, "cameras": 4, "per camera": "2592 / 1142 / 88 / 129"},
        "query": TEST_COUNTS,
        "gallery": TEST_COUNTS,
    },
    root_names=("RGBNT201",),
    splits={"train": "train_171", "query": "test", "gallery": "test"},
    modality_folders=MODALITIES,
    mask_folder="MASK",
    file_name=re.compile(r"(\d{6})_cam([1-9]\d*)_.+"),
    bad_name="file(s) not named like 000028_cam1_0_02.jpg",
    read_name=lambda match, _: {"pid": int(match[1]), "camera": int(match[2]) - 1},
)
