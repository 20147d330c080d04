"""tools.check_data: one run prints everything that is wrong with a data set, and its exit code says so."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.datasets import DATASETS
from tests.helpers.trees import write_manifest, write_rgbnt100, write_rgbnt201, write_wmveid863
from tools.check_data.__main__ import count_split, main

REPOSITORY = Path(__file__).resolve().parents[3]
TEST_COUNTS = {"ids": 2, "samples": 8, "cameras": 2, "per camera": "4 / 4"}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A miniature RGBNT201, whose description expects its counts."""
    expected = {
        "train": {"ids": 3, "samples": 12, "cameras": 2, "per camera": "6 / 6"},
        "query": TEST_COUNTS,
        "gallery": TEST_COUNTS,
    }
    info = dataclasses.replace(DATASETS["RGBNT201"], expected=expected)
    monkeypatch.setitem(DATASETS, "RGBNT201", info)
    return write_rgbnt201(tmp_path, train_ids=3, test_ids=2, images_per_id=4) / "RGBNT201"


def check(capsys, name, root, *options):
    code = main(["--name", name, "--root", str(root), "--workers", "2", *options])
    return code, capsys.readouterr().out


def test_a_data_set_in_order(tree, capsys):
    code, out = check(capsys, "rgbnt201", tree, "--num_instance", "4")
    assert code == 0
    assert "RGBNT201 is in order." in out and "!" not in out
    assert "train    ids                                3                        3" in out
    assert "gallery  per camera                     4 / 4                    4 / 4" in out
    assert "4 to 4 samples per training identity; 0 identities have fewer than 4" in out
    for modality in ("RGB", "NI", "TI"):
        assert f"{modality}: width x height 32x64 (20)\n" in out  # 12 + 8: query and gallery are the same files


def test_identities_with_fewer_images_than_k(tree, capsys):
    code, out = check(capsys, "RGBNT201", tree, "--num_instance", "5")
    assert code == 0 and "3 identities have fewer than 5" in out


def test_counts_other_than_expected(tree, capsys):
    for modality in ("RGB", "NI", "TI"):
        (tree / "train_171" / modality / "000002_cam1_0_00.jpg").unlink()
    code, out = check(capsys, "RGBNT201", tree)
    assert code == 1
    assert "! train    samples                           11                       12" in out
    assert "! train    per camera                     5 / 6                    6 / 6" in out
    assert (
        "2 count(s) other than published:\n  train, samples: 11 instead of 12\n  train, per camera" in out
        and "RGBNT201 is not in order." in out
    )


def test_the_published_counts_are_those_looked_for(tmp_path, capsys):
    code, out = check(capsys, "RGBNT201", write_rgbnt201(tmp_path))
    assert code == 1
    for counts in ("171", "3951", "2592 / 1142 / 88 / 129", "836", "365 / 471"):
        assert counts in out


def test_every_problem_of_a_broken_tree_is_printed(tree, capsys):
    train, test = tree / "train_171", tree / "test"
    (train / "TI" / "000001_cam1_0_00.jpg").unlink()
    (train / "NI" / "000003_cam2_0_03.jpg").rename(train / "NI" / "000009_cam2_0_03.jpg")
    for modality in ("RGB", "NI", "TI"):
        (train / modality / "000002_cam1_0_00.jpg").rename(train / modality / "who.jpg")
    truncated, empty = test / "RGB" / "000500_cam1_0_00.jpg", train / "NI" / "000003_cam1_0_00.jpg"
    os.truncate(truncated, truncated.stat().st_size // 2)
    empty.write_bytes(b"")
    code, out = check(capsys, "RGBNT201", tree)
    assert code == 1
    assert "3 file(s) without a partner of the same name:" in out
    assert "train_171/RGB/000001_cam1_0_00.jpg (not in TI)" in out
    assert "train_171/RGB/000003_cam2_0_03.jpg (not in NI)" in out
    assert "train_171/NI/000009_cam2_0_03.jpg (not in RGB, TI)" in out
    assert "1 file(s) not named like 000028_cam1_0_02.jpg:\n  train_171/RGB/who.jpg" in out
    assert "2 unreadable image(s):" in out and str(truncated) in out and str(empty) in out


def test_a_missing_split_does_not_hide_the_rest(tree, capsys):
    (tree / "test").rename(tree / "elsewhere")
    bad = tree / "train_171" / "RGB" / "000001_cam1_0_00.jpg"
    bad.write_bytes(b"")
    code, out = check(capsys, "RGBNT201", tree)
    assert code == 1 and "1 missing folder(s):\n  test" in out and str(bad) in out


def test_identities_in_train_and_test(tree, capsys):
    for modality in ("RGB", "NI", "TI"):
        for path in (tree / "test" / modality).glob("000501_*"):
            path.rename(path.with_name(path.name.replace("000501", "000001")))
    code, out = check(capsys, "RGBNT201", tree)
    assert code == 1 and "1 identities both in train and in the test sets:\n  1\n" in out


def test_without_published_counts_none_are_asserted(tmp_path, capsys):
    code, out = check(capsys, "WMVeID863", write_wmveid863(tmp_path))
    assert code == 0 and "WMVeID863 is in order." in out


def test_tiles_are_decoded_once_as_one_file(tmp_path, capsys):
    code, out = check(capsys, "RGBNT100", write_rgbnt100(tmp_path))
    assert code == 1 and "tiled: width x height 192x32 (31)" in out  # 16 + 12 + 3 files, counts as expected of none


def test_a_manifest_with_absent_modalities(tmp_path, capsys):
    code, out = check(capsys, "manifest", write_manifest(tmp_path, absent=("TI",)))
    assert code == 0 and "NI: width" in out and "TI: width" not in out


def test_an_empty_split_has_counts():
    assert count_split([]) == {"ids": 0, "samples": 0, "cameras": 0, "per camera": ""}


def test_the_script_runs_from_the_repository_root(tmp_path):
    command = [sys.executable, "-m", "tools.check_data", "--name", "RGBNT201", "--root", str(tmp_path / "nowhere")]
    missing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert missing.returncode == 2 and missing.stderr.startswith("error: RGBNT201 was not found")
    assert "Traceback" not in missing.stderr
