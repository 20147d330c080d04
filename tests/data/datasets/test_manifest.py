"""The CSV manifest becomes samples; every bad row is an error with file and line."""

import pytest

from data.datasets.manifest import MANIFEST
from data.loading.store import open_store
from tests.helpers.trees import write_manifest
from utils.errors import UserError

HEADER = "split,id,camera,scene,rgb,ni,ti"
GOOD = ("train,17,0,4,a.jpg,b.jpg,c.jpg", "query,23,1,5,a.jpg,,c.jpg", "gallery,23,2,6,,b.jpg,")


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a manifest of the given lines beside three (empty) images and returns its path."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()

    def write_lines(*lines, header=HEADER, encoding="utf-8"):
        path = tmp_path / "cars.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
        return path

    return write_lines


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        MANIFEST.parse(path)
    return str(error.value)


def test_rows_become_samples(write, tmp_path):
    splits = MANIFEST.parse(write(*GOOD))
    (train,), (query,), (gallery,) = splits["train"], splits["query"], splits["gallery"]
    a, b, c = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    assert (train.paths, train.pid, train.camera, train.scene) == ((a, b, c), 17, 0, 4)
    assert (query.paths, query.pid, query.camera, query.scene) == ((a, None, c), 23, 1, 5)
    assert (gallery.paths, gallery.name) == ((None, b, None), "b.jpg")
    assert not (train.tiled or train.mask)


def test_columns_may_be_in_any_order_and_lack_scene(write):
    lines = ["0,a.jpg,b.jpg,c.jpg,7,train", "1,a.jpg,,,8,query", "2,a.jpg,b.jpg,,8,gallery"]
    splits = MANIFEST.parse(write(*lines, header="camera,rgb,ni,ti,id,split"))
    sample = splits["train"][0]
    assert (sample.pid, sample.camera, sample.scene, sample.paths[2].name) == (7, 0, 0, "c.jpg")


def test_what_spreadsheets_write_is_understood(write, tmp_path):
    """The file has a byte-order mark, quoted fields, a comma in a name, CRLF and an empty last line."""
    (tmp_path / "a, b.jpg").touch()
    path = write('train,1,0,0,"a, b.jpg",,', *GOOD[1:], "", encoding="utf-8-sig")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert MANIFEST.parse(path)["train"][0].name == "a, b.jpg"


def test_paths_may_be_absolute_or_in_folders(write, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "d.jpg").touch()
    absolute = tmp_path / "b.jpg"
    paths = MANIFEST.parse(write(f"train,1,0,0,deep/er/d.jpg,{absolute},deep/../c.jpg", *GOOD[1:]))["train"][0].paths
    assert paths[1] == absolute and all(path.is_file() for path in paths)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("valid,1,0,0,a.jpg,,", "split is 'valid' but must be one of train, query, gallery"),
        ("train,x,0,0,a.jpg,,", "id is 'x' but must be a whole number from 0"),
        ("train,-1,0,0,a.jpg,,", "id is '-1'"),
        ("train,1.5,0,0,a.jpg,,", "id is '1.5'"),
        ("train,,0,0,a.jpg,,", "id is ''"),
        ("train,1,²,0,a.jpg,,", "camera is '²'"),
        ("train,1,0,s1,a.jpg,,", "scene is 's1'"),
        ("train,1,0,0,,,", "all of rgb, ni, ti are empty"),
        ("train,1,0,0,a.jpg,", "it does not have as many fields"),
        ("train,1,0,0,a.jpg,,,", "it does not have as many fields"),
        ("train,1,0,0,d.jpg,,", "there is no image"),
        ("train,1,0,0,folder/a.jpg,,", "there is no image"),
        (GOOD[0], "it repeats line 2"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write, row, reason):
    path = write(*GOOD, row)
    message = refused(path)
    assert f"1 bad row(s): {path}:5 ({reason}" in message


def test_all_bad_rows_are_collected(write):
    path = write(*GOOD, "valid,1,0,0,a.jpg,,", *(f"train,{i},0,0,no{i}.jpg,,no{i}.png" for i in range(4)))
    entries = MANIFEST.scan(path).problems["bad row(s)"]
    assert [entry.split(" ")[0] for entry in entries] == [f"{path}:5"] + [f"{path}:{6 + i // 2}" for i in range(8)]
    message = refused(path)
    assert "9 bad row(s)" in message and "and 4 more" in message


def test_the_line_number_is_right_after_a_field_of_two_lines(write, tmp_path):
    (tmp_path / "two\nlines.jpg").touch()
    path = write('train,1,0,0,"two\nlines.jpg",,', *GOOD, "train,x,0,0,a.jpg,,")
    assert f"{path}:7 (id is 'x'" in refused(path)


@pytest.mark.parametrize(
    "header", ["split,id,camera,scene,rgb,nir,tir", "split;id;camera;scene;rgb;ni;ti", "", "rgb," + HEADER]
)
def test_a_wrong_header_is_shown_beside_the_right_one(write, header):
    message = refused(write(*GOOD, header=header))
    assert repr(header) in message and HEADER in message


def test_a_split_without_rows_is_named(write):
    assert "2 split(s) without a row: query, gallery" in refused(write(GOOD[0]))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'split,id,camera,scene,rgb,ni,ti\ntrain,1,0,0,"a.jpg,,\n'])
def test_a_file_that_is_not_a_csv_is_named(tmp_path, content):
    path = tmp_path / "cars.csv"
    path.write_bytes(content)
    assert f"{path} is not a CSV file in UTF-8" in refused(path)


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_missing_manifest_says_what_to_do(tmp_path, name):
    message = refused(tmp_path / name)
    for part in (str(tmp_path / name), "DATASETS.ROOT_DIR", HEADER, "README", "needs no download"):
        assert part in message


def test_absent_modalities_reach_the_store(tmp_path):
    samples = MANIFEST.parse(write_manifest(tmp_path, absent=("NI",)))["query"]
    opened = open_store(samples, size_hw=(16, 8), cache_dir=None, workers=1)
    assert opened.present.tolist() == [[True, False, True]] * len(samples)
    assert not opened.images[:, 1].any() and opened.images[:, 2].any()
