"""WMVeID863 shows vehicles under glare, with 863 identities (Zheng et al., arXiv:2305.13659).

The layout is {train,query,test}/<id>/{vis,ni,th}/*.jpg. The identity is the folder's number. The name holds the camera
as v<digit> and may say whether it was night as n<digit>, which becomes the scene.
"""

from __future__ import annotations

import re
from pathlib import Path

from data.datasets.base import FolderDataSet


def _read_name(match: re.Match[str], folder: Path) -> dict[str, int]:
    if not re.fullmatch("[0-9]+", folder.name):
        raise ValueError("file(s) in a folder that is not named by the identity's number")
    return {"pid": int(folder.name), "camera": int(match[1]), "scene": int(match[2] or 0)}


WMVEID863 = FolderDataSet(
    name="WMVeID863",
    source="from its authors (Zheng et al., arXiv:2305.13659), see the README",
    protocol="camera",
    root_names=("WMVeID863",),
    splits={"train": "train", "query": "query", "gallery": "test"},
    modality_folders=("vis", "ni", "th"),
    has_identity_folders=True,
    file_name=re.compile(r"(?=.*?v(\d))(?=(?:.*?n(\d))?).*"),  # finds the first of each, in either order
    bad_name="file(s) without v<digit> (the camera) in the name",
    read_name=_read_name,
)
