"""RGBNT100, MSVR310, WMVeID863 and the registry, on miniature trees in their true layouts."""

import pytest
from tests.helpers.trees import write_msvr310, write_rgbnt100, write_wmveid863

from data.datasets import msvr310, rgbnt100, rgbnt201, wmveid863
from data.datasets.registry import DATASETS, find_dataset
from data.loading.store import open_store
from utils.errors import UserError

WRITERS = {rgbnt100: write_rgbnt100, msvr310: write_msvr310, wmveid863: write_wmveid863}


def refused(parse, root) -> str:
    with pytest.raises(UserError) as error:
        parse(root)
    return str(error.value)


# ----------------------------------------------------------------------------------------------------- RGBNT100


def test_rgbnt100(tmp_path):
    splits = rgbnt100.parse(write_rgbnt100(tmp_path))
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
def test_rgbnt100_is_found_from_above(tmp_path, inner):
    write_rgbnt100(tmp_path)
    assert len(rgbnt100.parse(tmp_path / inner)["train"]) == 16


@pytest.mark.parametrize("name", ["c0001_000.jpg", "0001_c0000_000.jpg", "0001-c0001.jpg"])
def test_rgbnt100_names_a_bad_name(tmp_path, name):
    write_rgbnt100(tmp_path)
    (tmp_path / "RGBNT100/rgbir/query" / name).touch()
    assert f"1 file(s) not named like 0548_c0002_000.jpg: query/{name}" in refused(rgbnt100.parse, tmp_path)


# ------------------------------------------------------------------------------------------ MSVR310 and WMVeID863


def test_msvr310(tmp_path):
    splits = msvr310.parse(write_msvr310(tmp_path))
    assert [(s.name, s.pid, s.camera, s.scene) for s in splits["train"][:2]] == [
        ("0001_s000_v0_000.jpg", 1, 0, 0),
        ("0001_s000_v0_002.jpg", 1, 0, 0),
    ]
    sample = splits["query"][-1]
    assert (sample.pid, sample.camera, sample.scene) == (502, 1, 1)
    folder = tmp_path / "MSVR310" / "query3" / "0502"
    assert sample.paths == tuple(folder / modality / sample.name for modality in ("vis", "ni", "th"))
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 16, "query": 12, "gallery": 12}


def test_msvr310_keeps_the_digits_of_scene_and_view(tmp_path):
    write_msvr310(tmp_path)
    for modality in ("vis", "ni", "th"):
        (tmp_path / "MSVR310/query3/0500" / modality / "0500_s027_v7_009.jpg").touch()
    sample = next(s for s in msvr310.parse(tmp_path)["query"] if s.scene == 27)
    assert (sample.pid, sample.camera) == (500, 7)


def test_wmveid863(tmp_path):
    splits = wmveid863.parse(write_wmveid863(tmp_path))
    sample = splits["gallery"][-1]
    assert (sample.pid, sample.camera, sample.scene) == (502, 1, 0)
    folder = tmp_path / "WMVEID863" / "test" / "0502"
    assert sample.paths == tuple(folder / modality / sample.name for modality in ("vis", "ni", "th"))
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 16, "query": 12, "gallery": 12}


def test_wmveid863_takes_the_identity_from_the_folder_and_the_night_from_the_name(tmp_path):
    write_wmveid863(tmp_path)
    folder = tmp_path / "WMVEID863" / "query" / "0700"
    for modality in ("vis", "ni", "th"):
        (folder / modality).mkdir(parents=True)
        (folder / modality / "0001_v3_n1_05.jpg").touch()
        (folder / modality / "0001_v4_05.jpg").touch()
    found = [(s.pid, s.camera, s.scene) for s in wmveid863.parse(tmp_path)["query"][-2:]]
    assert found == [(700, 3, 1), (700, 4, 0)]


@pytest.mark.parametrize("folder", ["WMVEID863", "WMVeID863", "wmveid863"])
def test_letter_case_of_the_folder_does_not_count(tmp_path, folder):
    write_wmveid863(tmp_path)
    (tmp_path / "WMVEID863").rename(tmp_path / folder)
    assert len(wmveid863.parse(tmp_path)["train"]) == 16


def test_msvr310_in_small_letters(tmp_path):
    write_msvr310(tmp_path)
    (tmp_path / "MSVR310").rename(tmp_path / "msvr310")
    assert len(msvr310.parse(tmp_path)["train"]) == 16


def test_bad_names_in_id_folders(tmp_path):
    write_msvr310(tmp_path)
    write_wmveid863(tmp_path)
    for modality in ("vis", "ni", "th"):
        (tmp_path / "MSVR310/query3/0500" / modality / "0500_s1_v0_009.jpg").touch()
        (tmp_path / "WMVEID863/query/0500" / modality / "0500.jpg").touch()
    (tmp_path / "WMVEID863/test/0501").rename(tmp_path / "WMVEID863/test/car")
    assert "1 file(s) not named like 0001_s001_v0_000.jpg: query3/0500/vis/" in refused(msvr310.parse, tmp_path)
    message = refused(wmveid863.parse, tmp_path)
    assert "1 file(s) without v<digit> (the camera) in the name: query/0500/vis/0500.jpg" in message
    assert "4 file(s) in a folder that is not named by the identity's number: test/car/vis/" in message


# --------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("module", [msvr310, wmveid863])
def test_unpaired_files_and_missing_folders_are_named(tmp_path, module):
    WRITERS[module](tmp_path)
    root = module.scan(tmp_path).root
    folder = sorted((root / module.SPLITS["gallery"]).iterdir())
    name = sorted(path.name for path in (folder[0] / "th").iterdir())[0]
    (folder[0] / "th" / name).unlink()
    (folder[1] / "ni").rename(tmp_path / "elsewhere")
    message = refused(module.parse, tmp_path)
    assert f"{folder[0].relative_to(root)}/vis/{name} (not in th)" in message
    assert f"1 missing folder(s): {folder[1].relative_to(root)}/ni" in message


@pytest.mark.parametrize("module", WRITERS)
def test_a_missing_split_is_named(tmp_path, module):
    WRITERS[module](tmp_path)
    root = module.scan(tmp_path).root
    (root / module.SPLITS["query"]).rename(tmp_path / "elsewhere")
    assert f"1 missing folder(s): {module.SPLITS['query']}" in refused(module.parse, tmp_path)


@pytest.mark.parametrize("module", WRITERS)
def test_an_empty_split_is_named(tmp_path, module):
    WRITERS[module](tmp_path)
    root = module.scan(tmp_path).root
    query = root / module.SPLITS["query"]
    query.rename(tmp_path / "elsewhere")
    query.mkdir()
    assert f"1 folder(s) without any image triplet: {module.SPLITS['query']}" in refused(module.parse, tmp_path)


@pytest.mark.parametrize("module", WRITERS)
def test_a_missing_data_set_says_what_to_do(tmp_path, module):
    message = refused(module.parse, tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere"),
        *module.SPLITS.values(),
        "DATASETS.ROOT_DIR",
        "README",
        "needs no download",
    ):
        assert part in message


@pytest.mark.parametrize("module", WRITERS)
def test_the_images_can_be_decoded(tmp_path, module):
    samples = module.parse(WRITERS[module](tmp_path))["query"]
    opened = open_store(samples, size_hw=(32, 64), cache_dir=None, workers=1)
    assert opened.present.all()
    colours = opened.images.mean((3, 4)).round()  # every modality of an identity has a colour of its own
    assert len({tuple(colour) for colour in colours[0]}) == 3


# ------------------------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize(
    ("name", "module", "protocol"),
    [
        ("RGBNT201", rgbnt201, "camera"),
        ("RGBNT100", rgbnt100, "camera"),
        ("MSVR310", msvr310, "scene"),
        ("WMVeID863", wmveid863, "camera"),
    ],
)
def test_the_registry_knows_each_by_name_in_any_case(name, module, protocol):
    for spelling in (name, name.lower(), name.upper()):
        info = find_dataset(spelling)
        assert (info.name, info.parse, info.scan, info.protocol) == (name, module.parse, module.scan, protocol)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UserError) as error:
        find_dataset("Market1501")
    for part in ("DATASETS.NAMES", "'Market1501'", "synthetic", *DATASETS):
        assert part in str(error.value)
