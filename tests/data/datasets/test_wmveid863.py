"""WMVeID863 is read from a miniature tree in its true layout."""

import pytest

from data.datasets.wmveid863 import WMVEID863
from tests.helpers.trees import write_wmveid863
from utils.errors import UserError


def test_the_samples_are_listed(tmp_path):
    splits = WMVEID863.parse(write_wmveid863(tmp_path))
    sample = splits["gallery"][-1]
    assert (sample.pid, sample.camera, sample.scene) == (502, 1, 0)
    folder = tmp_path / "WMVEID863" / "test" / "0502"
    assert sample.paths == tuple(folder / modality / sample.name for modality in ("vis", "ni", "th"))
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 16, "query": 12, "gallery": 12}


def test_the_folder_gives_the_identity_and_the_name_gives_camera_and_night(tmp_path):
    write_wmveid863(tmp_path)
    folder = tmp_path / "WMVEID863" / "query" / "0700"
    for modality in ("vis", "ni", "th"):
        (folder / modality).mkdir(parents=True)
        for name in ("0001_v3_n1_05.jpg", "0001_v4_05.jpg", "n2_v5_v6_n3.jpg"):
            (folder / modality / name).touch()
    found = [(s.pid, s.camera, s.scene) for s in WMVEID863.parse(tmp_path)["query"][-3:]]
    assert found == [(700, 3, 1), (700, 4, 0), (700, 5, 2)]


@pytest.mark.parametrize("folder", ["WMVEID863", "WMVeID863", "wmveid863"])
def test_letter_case_of_the_folder_does_not_matter(tmp_path, folder):
    write_wmveid863(tmp_path)
    (tmp_path / "WMVEID863").rename(tmp_path / folder)
    assert len(WMVEID863.parse(tmp_path)["train"]) == 16


def test_badly_named_files_and_folders_are_named(tmp_path):
    write_wmveid863(tmp_path)
    for modality in ("vis", "ni", "th"):
        (tmp_path / "WMVEID863/query/0500" / modality / "0500.jpg").touch()
    (tmp_path / "WMVEID863/test/0501").rename(tmp_path / "WMVEID863/test/car")
    with pytest.raises(UserError) as error:
        WMVEID863.parse(tmp_path)
    message = str(error.value)
    assert "1 file(s) without v<digit> (the camera) in the name: query/0500/vis/0500.jpg" in message
    assert "4 file(s) in a folder that is not named by the identity's number: test/car/vis/" in message
