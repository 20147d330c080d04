"""These rules hold for every data set in folders; miniature trees in the true layouts show it."""

import pytest

from data.datasets import DATASETS
from data.loading.store import open_store
from tests.helpers.trees import WRITERS
from utils.errors import UserError

NAMES = pytest.mark.parametrize("name", WRITERS)
IDENTITY_FOLDERS = pytest.mark.parametrize("name", [name for name in WRITERS if DATASETS[name].has_identity_folders])


@pytest.fixture
def tree(name, tmp_path):
    """Write the data set `name`, and return it with the folder that holds its splits."""
    dataset = DATASETS[name]
    return dataset, dataset.scan(WRITERS[name](tmp_path / "tree")).root


def refused(dataset, root) -> str:
    with pytest.raises(UserError) as error:
        dataset.parse(root)
    return str(error.value)


@IDENTITY_FOLDERS
def test_unpaired_files_and_missing_folders_are_named(tree, tmp_path):
    dataset, root = tree
    folder = sorted((root / dataset.splits["gallery"]).iterdir())
    name = sorted(path.name for path in (folder[0] / "th").iterdir())[0]
    (folder[0] / "th" / name).unlink()
    (folder[1] / "ni").rename(tmp_path / "elsewhere")
    message = refused(dataset, root)
    assert f"{folder[0].relative_to(root)}/vis/{name} (not in th)" in message
    assert f"1 missing folder(s): {folder[1].relative_to(root)}/ni" in message


@NAMES
def test_a_missing_split_is_named(tree, tmp_path):
    dataset, root = tree
    (root / dataset.splits["query"]).rename(tmp_path / "elsewhere")
    assert f"1 missing folder(s): {dataset.splits['query']}" in refused(dataset, root)


@NAMES
def test_an_empty_split_is_named(tree):
    dataset, root = tree
    for path in (root / dataset.splits["query"]).rglob("*.jpg"):
        path.unlink()
    assert f"1 folder(s) without any sample: {dataset.splits['query']}" in refused(dataset, root)


@NAMES
def test_a_missing_data_set_says_what_to_do(name, tmp_path):
    dataset = DATASETS[name]
    message = refused(dataset, tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere"),
        *dataset.splits.values(),
        "DATASETS.ROOT_DIR",
        "README",
        "needs no download",
    ):
        assert part in message


@NAMES
def test_the_images_can_be_decoded(tree):
    dataset, root = tree
    opened = open_store(dataset.parse(root)["query"], size_hw=(32, 64), cache_dir=None, workers=1)
    assert opened.present.all()
    colours = opened.images.mean((3, 4)).round()  # every identity has a different colour in each modality
    assert len({tuple(colour) for colour in colours[0]}) == 3


@NAMES
def test_published_counts_belong_to_a_split(name):
    for split, counts in (DATASETS[name].expected or {}).items():
        assert split in DATASETS[name].splits
        assert set(counts) <= {"ids", "samples", "cameras", "per camera"}
