"""The parser reads no pixel, so trees of empty files in RGBNT201's layout are enough."""

from pathlib import Path

import pytest

from data.datasets.rgbnt201 import RGBNT201
from data.sample import MODALITIES
from utils.errors import UserError

TRAIN = ("000007_cam4_0_01.jpg", "000002_cam1_1_00.jpg", "000002_cam2_0_11.jpg", "000002_cam1_0_02.jpg")
TEST = ("000258_cam1_0_00.jpg", "000258_cam2_0_00.jpg")


@pytest.fixture
def tree(tmp_path):
    """Write a tree and return the folder that holds train_171 and test."""
    root = tmp_path / "RGBNT201"
    for split, names in (("train_171", TRAIN), ("test", TEST)):
        for modality in MODALITIES:
            touch(*(root / split / modality / name for name in names))
    return root


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def refused(root: Path) -> str:
    with pytest.raises(UserError) as error:
        RGBNT201.parse(root)
    return str(error.value)


def test_samples_are_sorted_and_read_off_the_names(tree):
    splits = RGBNT201.parse(tree)
    assert [(s.name, s.pid, s.camera, s.scene, s.mask, s.tiled) for s in splits["train"]] == [
        ("000002_cam1_0_02.jpg", 2, 0, 0, None, False),
        ("000002_cam1_1_00.jpg", 2, 0, 0, None, False),
        ("000002_cam2_0_11.jpg", 2, 1, 0, None, False),
        ("000007_cam4_0_01.jpg", 7, 3, 0, None, False),
    ]
    for sample in splits["train"]:
        assert sample.paths == tuple(tree / "train_171" / modality / sample.name for modality in MODALITIES)


def test_query_and_gallery_are_the_test_folder(tree):
    splits = RGBNT201.parse(tree)
    assert [s.name for s in splits["query"]] == list(TEST)
    assert splits["query"] == splits["gallery"]


@pytest.mark.parametrize("folder", ["RGBNT201", "rgbnt201"])
def test_the_folder_above_will_do(tree, folder):
    tree.rename(tree.with_name(folder))
    assert len(RGBNT201.parse(tree.parent)["train"]) == 4


def test_a_stray_test_folder_beside_it_does_not_mislead(tree):
    (tree.parent / "test").mkdir()
    assert len(RGBNT201.parse(tree.parent)["train"]) == 4


def test_stray_files_are_ignored(tree):
    folder = tree / "test" / "NI"
    touch(*(folder / name for name in (".DS_Store", "Thumbs.db", "notes.txt", "._000258_cam1_0_00.jpg")))
    (folder / "old.jpg").mkdir()
    assert len(RGBNT201.parse(tree)["query"]) == 2


def test_masks_are_found_beside_the_modalities(tree):
    touch(*(tree / "test" / "MASK" / f"{Path(name).stem}.png" for name in TEST))
    splits = RGBNT201.parse(tree)
    masks = tree / "test" / "MASK"
    assert [s.mask for s in splits["query"]] == [masks / "000258_cam1_0_00.png", masks / "000258_cam2_0_00.png"]
    assert all(s.mask is None for s in splits["train"])


def test_a_missing_mask_is_named(tree):
    touch(tree / "test" / "MASK" / "000258_cam1_0_00.png")
    assert "1 sample(s) without a mask: test/RGB/000258_cam2_0_00.jpg" in refused(tree)


def test_pairs_are_made_by_name_not_by_position(tree):
    """All folders hold as many files, but one has another name: pairing by position would mix two persons."""
    ti = tree / "train_171" / "TI"
    (ti / "000007_cam4_0_01.jpg").rename(ti / "000008_cam4_0_01.jpg")
    message = refused(tree)
    assert "2 file(s) without a partner" in message
    assert "train_171/RGB/000007_cam4_0_01.jpg (not in TI)" in message
    assert "train_171/TI/000008_cam4_0_01.jpg (not in RGB, NI)" in message


def test_the_first_five_of_many_are_named_and_the_rest_counted(tree):
    names = [f"000100_cam1_0_{i:02d}.jpg" for i in range(7)]
    touch(*(tree / "train_171" / "RGB" / name for name in names))
    message = refused(tree)
    assert "7 file(s) without a partner" in message and "and 2 more" in message
    assert [name in message for name in names] == [True] * 5 + [False] * 2


@pytest.mark.parametrize("name", ["28_cam1_0_02.jpg", "000028_cam0_0_02.jpg", "000028_c1_0_02.jpg", "000028_cam1.jpg"])
def test_a_badly_named_file_is_named(tree, name):
    touch(*(tree / "test" / modality / name for modality in MODALITIES))
    assert f"1 file(s) not named like 000028_cam1_0_02.jpg: test/RGB/{name}" in refused(tree)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_where_there_is_no_data_set_the_error_says_what_to_do(tmp_path, make):
    root = tmp_path / "datasets"
    make(root)
    message = refused(root)
    for part in (str(root), str(root / "RGBNT201"), "train_171", "DATASETS.ROOT_DIR", "authors on request", "README"):
        assert part in message
    assert "configs/Synthetic/DeMo_SDTPS.yml needs no download" in message


@pytest.mark.parametrize("missing", ["test", "train_171/TI"])
def test_a_missing_folder_is_named(tree, missing):
    (tree / missing).rename(tree / "elsewhere")
    assert f"1 missing folder(s): {missing}." in refused(tree).replace(";", ".")


def test_an_empty_split_is_an_error(tree):
    for modality in MODALITIES:
        for name in TEST:
            (tree / "test" / modality / name).unlink()
    assert "1 folder(s) without any sample: test" in refused(tree)


def test_a_scan_collects_all_that_is_wrong(tree):
    (tree / "test" / "RGB" / TEST[0]).unlink()
    touch(*(tree / "train_171" / modality / "nobody.jpg" for modality in MODALITIES))
    found = RGBNT201.scan(tree)
    assert sorted(found.problems) == [
        "file(s) not named like 000028_cam1_0_02.jpg",
        "file(s) without a partner of the same name",
    ]
    assert len(found.splits["train"]) == 4 and len(found.splits["query"]) == 1
