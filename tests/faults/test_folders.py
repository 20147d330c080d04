"""In data set folders as users have them, strays are ignored, and what is missing or too small is named."""

import shutil

import pytest

from tests.helpers.trees import write_rgbnt201

TRAIN, TEST = "RGBNT201/train_171", "RGBNT201/test"


def _strays(root):
    for split in (TRAIN, TEST):
        for name in ("Thumbs.db", ".DS_Store", "._000001_cam1_0_00.jpg", "readme.txt", "labels.csv"):
            (root / split / "RGB" / name).write_bytes(b"stray")
        (root / split / "RGB" / "thumbnails").mkdir()
        (root / split / "depth").mkdir()
    (root / "__MACOSX").mkdir()


def _unpaired(root):
    next((root / TRAIN / "NI").glob("*.jpg")).unlink()


def _extra_in_one(root):
    shutil.copy(next((root / TEST / "TI").glob("*.jpg")), root / TEST / "TI" / "000999_cam1_0_00.jpg")


def _other_suffix_in_one(root):
    path = next((root / TRAIN / "TI").glob("*.jpg"))
    path.rename(path.with_suffix(".png"))


def _no_modality(root):
    shutil.rmtree(root / TRAIN / "TI")


def _empty_modality(root):
    for path in (root / TEST / "NI").glob("*"):
        path.unlink()


def _empty_split(root):
    for path in (root / TEST).glob("*/*"):
        path.unlink()


def _no_split(root):
    shutil.rmtree(root / TEST)


def _bad_name(root):
    for path in sorted((root / TRAIN).glob("*/000001_cam1_0_00.jpg")):
        path.rename(path.with_name("person one.jpg"))


def _camera_zero(root):
    for path in sorted((root / TRAIN).glob("*/000001_cam1_0_00.jpg")):
        path.rename(path.with_name("000001_cam0_0_00.jpg"))


def _one_camera(root):
    for path in sorted((root / TEST).glob("*/*cam2*")):
        path.rename(path.with_name(path.name.replace("cam2", "cam1")))


def _one_id(root):
    for path in (root / TRAIN).glob("*/*"):
        if not path.name.startswith("000001"):
            path.unlink()


REFUSED = {
    _unpaired: ("1 file(s) without a partner", "not in NI"),
    _extra_in_one: ("000999_cam1_0_00.jpg", "not in RGB, NI"),
    _other_suffix_in_one: ("2 file(s) without a partner",),
    _no_modality: ("missing folder(s)", "train_171/TI"),
    _empty_modality: ("without a partner", "not in NI"),
    _empty_split: ("without any sample",),
    _no_split: ("missing folder(s): test",),
    _bad_name: ("not named like 000028_cam1_0_02.jpg", "person one.jpg"),
    _camera_zero: ("not named like 000028_cam1_0_02.jpg", "000001_cam0_0_00.jpg"),
    _one_camera: ("No query of the test set has a match in the gallery of another camera", "1 camera(s)"),
    _one_id: ("needs 2 identities in a batch, but there are 1",),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__.strip("_"))
def test_a_broken_data_set_is_refused_before_the_first_step(launch, small, tmp_path, change):
    """This holds even if nothing is scored before training, so that no epoch is lost."""
    change(tmp_path / "data")
    run = launch("train_net", "--config_file", small, "TEST.UNTRAINED", False)
    run.is_refused(*REFUSED[change])
    assert not list((tmp_path / "out").glob("*.pth")) and "epoch 1" not in run.text()


@pytest.mark.slow
def test_strays_change_nothing(launch, small, tmp_path):
    _strays(tmp_path / "data")
    run = launch("train_net", "--config_file", small)
    run.ends_well()
    assert "6 identities, 12 samples to train; 8 queries, 8 gallery" in run.text()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"train_ids": 1, "softmax": True}, {"test_ids": 1}, {"train_ids": 2}])
def test_the_smallest_sets_can_be_trained_on_and_scored(launch, small, tmp_path, options):
    """One identity is enough without the triplet loss, two with it, and one to find."""
    options, argv = dict(options), []
    if options.pop("softmax", False):
        argv = ["DATALOADER.SAMPLER", "softmax", "SOLVER.IMS_PER_BATCH", 2]
        small.write_text(small.read_text().replace(", NUM_INSTANCE: 2", ""))
    root = write_rgbnt201(tmp_path / "least", images_per_id=2, **options)
    launch("train_net", "--config_file", small, "DATASETS.ROOT_DIR", root, *argv).ends_well()
