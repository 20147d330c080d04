"""MSVR310 shows vehicles, with 155 identities to train on and 155 to test on (Zheng et al., Information Fusion 2023).

The layout is {bounding_box_train,query3,bounding_box_test}/<id>/{vis,ni,th}/0001_s001_v0_000.jpg, where the name gives
the identity, the scene, the viewpoint (0 to 7), which stands in for the camera, and a running number. A query ignores
gallery images of its own identity and *scene*.
"""

import re

from data.datasets.base import FolderDataSet

MSVR310 = FolderDataSet(
    name="MSVR310",
    source="from its authors (Zheng et al., Information Fusion 2023), see the README",
    protocol="scene",
    expected={
        "train": {"ids": 155, "samples": 1032},
        "query": {"ids": 52, "samples": 591},
        "gallery": {"ids": 155, "samples": 1055},
    },
    root_names=("MSVR310",),
    splits={"train": "bounding_box_train", "query": "query3", "gallery": "bounding_box_test"},
    modality_folders=("vis", "ni", "th"),
    has_identity_folders=True,
    file_name=re.compile(r"(\d{4})_s(\d{3})_v(\d)(_.+)?"),
    bad_name="file(s) not named like 0001_s001_v0_000.jpg",
    read_name=lambda match, _: {"pid": int(match[1]), "camera": int(match[3]), "scene": int(match[2])},
)
