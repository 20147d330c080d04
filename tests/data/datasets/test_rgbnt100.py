"""RGBNT100 is read from a miniature tree in its true layout."""

import pytest

from data.datasets.rgbnt100 import RGBNT100
from tests.helpers.trees import write_rgbnt100
from utils.errors import UserError


def test_the_samples_are_listed(tmp_path):
    splits = RGBNT100.parse(write_rgbnt100(tmp_path))
    folder = tmp_path / "RGBNT100" / "rgbir"
    assert [(s.name, s.pid, s.camera) for s in splits["train"][:3]] == [
        ("0001_c0001_000.jpg", 1, 0),
        ("0001_c0001_002.jpg", 1, 0),
        ("0001_c0002_001.jpg", 1, 1),
    ]
    assert splits["train"][0].paths == (folder / "bounding_box_train" / "0001_c0001_000.jpg",) * 3
    assert all(s.tiled for samples in splits.values() for s in samples)
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 16, "query": 3, "gallery": 12}
    assert splits["query"][0].paths[0] == folder / "query" / "0500_c0001_000.jpg"


@pytest.mark.parametrize("inner", ["", "RGBNT100", "RGBNT100/rgbir"])
def test_it_is_found_from_the_folders_above(tmp_path, inner):
    write_rgbnt100(tmp_path)
    assert len(RGBNT100.parse(tmp_path / inner)["train"]) == 16


@pytest.mark.parametrize("name", ["c0001_000.jpg", "0001_c0000_000.jpg", "0001-c0001.jpg"])
def test_a_badly_named_file_is_named(tmp_path, name):
    write_rgbnt100(tmp_path)
    (tmp_path / "RGBNT100/rgbir/query" / name).touch()
    with pytest.raises(UserError) as error:
        RGBNT100.parse(tmp_path)
    assert f"1 file(s) not named like 0548_c0002_000.jpg: query/{name}" in str(error.value)
