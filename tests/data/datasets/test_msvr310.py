"""MSVR310 is read from a miniature tree in its true layout."""

import pytest

from data.datasets.msvr310 import MSVR310
from tests.helpers.trees import write_msvr310
from utils.errors import UserError


def touch(root, name):
    for modality in ("vis", "ni", "th"):
        (root / "MSVR310/query3/0500" / modality / name).touch()


def test_the_samples_are_listed(tmp_path):
    splits = MSVR310.parse(write_msvr310(tmp_path))
    assert [(s.name, s.pid, s.camera, s.scene) for s in splits["train"][:2]] == [
        ("0001_s000_v0_000.jpg", 1, 0, 0),
        ("0001_s000_v0_002.jpg", 1, 0, 0),
    ]
    sample = splits["query"][-1]
    assert (sample.pid, sample.camera, sample.scene) == (502, 1, 1)
    folder = tmp_path / "MSVR310" / "query3" / "0502"
    assert sample.paths == tuple(folder / modality / sample.name for modality in ("vis", "ni", "th"))
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 16, "query": 12, "gallery": 12}


def test_the_digits_of_scene_and_viewpoint_are_kept(tmp_path):
    write_msvr310(tmp_path)
    touch(tmp_path, "0500_s027_v7_009.jpg")
    sample = next(s for s in MSVR310.parse(tmp_path)["query"] if s.scene == 27)
    assert (sample.pid, sample.camera) == (500, 7)


def test_its_folder_may_be_in_lower_case(tmp_path):
    write_msvr310(tmp_path)
    (tmp_path / "MSVR310").rename(tmp_path / "msvr310")
    assert len(MSVR310.parse(tmp_path)["train"]) == 16


def test_a_badly_named_file_is_named(tmp_path):
    write_msvr310(tmp_path)
    touch(tmp_path, "0500_s1_v0_009.jpg")
    with pytest.raises(UserError, match=r"1 file\(s\) not named like 0001_s001_v0_000\.jpg: query3/0500/vis/"):
        MSVR310.parse(tmp_path)
