"""The synthetic set is written whole, repeats, and has the property that makes it a benchmark."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sample import MODALITIES
from data.synthetic import SyntheticSpec, contact_sheet, ensure_synthetic, generate
from data.synthetic.identity import CHANNELS, LOWER_RGB, SLOTS, UPPER_RGB, make_identity
from data.synthetic.sample_renderer import make_sample
from utils.errors import UserError

SMALL = SyntheticSpec(
    train_ids=4, test_ids=3, train_images=14, test_images=8, size_hw=(64, 32), difficulty=0.5, off_centre=0.0, seed=3
)
LARGER = replace(SMALL, train_ids=48, test_ids=20, train_images=768, test_images=240, size_hw=(256, 128), seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensure_synthetic(tmp_path_factory.mktemp("datasets"), SMALL, workers=0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------------- files
def test_layout_and_counts_are_those_of_rgbnt201(folder):
    ids_seen = {}
    for split, ids, images in (("train_171", 4, 14), ("test", 3, 8)):
        names = {
            kind: sorted(path.stem for path in (folder / split / kind).iterdir()) for kind in (*MODALITIES, "MASK")
        }
        assert len(set(map(tuple, names.values()))) == 1  # the same in every folder
        stems = names["RGB"]
        assert len(stems) == images
        assert all(re.fullmatch(r"\d{6}_cam\d_\d_\d{2}", stem) for stem in stems)
        per_id = Counter(stem[:6] for stem in stems)
        assert len(per_id) == ids and max(per_id.values()) - min(per_id.values()) <= 1
        ids_seen[split] = set(per_id)
        cameras = defaultdict(set)
        for stem in stems:
            cameras[stem[:6]].add(int(stem[10]))
        if split == "test":
            assert all(seen == {1, 2} for seen in cameras.values())
        else:
            assert all(len(seen) >= 2 for seen in cameras.values())
            assert set.union(*cameras.values()) == {1, 2, 3, 4}
    assert not ids_seen["train_171"] & ids_seen["test"]


def test_images_and_masks_have_the_right_form(folder):
    for split in ("train_171", "test"):
        for path in (folder / split).rglob("*.jpg"):
            with Image.open(path) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 64))
        for path in (folder / split / "MASK").iterdir():
            with Image.open(path) as mask:
                assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (32, 64))
                assert set(np.unique(mask)) == {0, 255}


def test_bytes_do_not_depend_on_the_run_or_the_workers(folder, tmp_path):
    again = ensure_synthetic(tmp_path, SMALL, workers=2)
    assert again.name == folder.name
    assert contents(again) == contents(folder)


def test_another_spec_gives_another_folder_and_another_seed_other_pixels(folder):
    for change in ({"seed": 4}, {"difficulty": 0.6}, {"off_centre": 0.1}, {"size_hw": (64, 40)}, {"train_images": 15}):
        assert replace(SMALL, **change).folder_name != SMALL.folder_name
    assert "_d0.5_s3_" in SMALL.folder_name and "_d0.5_o0.1_s3_" in replace(SMALL, off_centre=0.1).folder_name
    first, second = (make_sample(spec, "train", 0, 0) for spec in (SMALL, replace(SMALL, seed=4)))
    assert not np.array_equal(first.images["RGB"], second.images["RGB"])


def test_an_image_is_a_function_of_its_own_key_alone():
    larger = replace(SMALL, train_ids=9, train_images=100, test_ids=5, test_images=20)
    for split, index, number in (("train", 3, 1), ("test", 2, 1)):
        first, second = (make_sample(spec, split, index, number) for spec in (SMALL, larger))
        assert all(np.array_equal(first.images[name], second.images[name]) for name in MODALITIES)


def test_a_complete_set_is_reused_without_a_write(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("generated again")

    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    monkeypatch.setattr(generate, "_generate", refuse)
    assert ensure_synthetic(folder.parent, SMALL, workers=0) == folder
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before


@pytest.mark.parametrize("damage", ["spec.json", "test/MASK", "train_171/NI"])
def test_a_half_written_folder_is_made_again(folder, tmp_path, damage):
    broken = tmp_path / SMALL.folder_name
    shutil.copytree(folder, broken)
    target = broken / damage
    (sorted(target.iterdir())[0] if target.is_dir() else target).unlink()
    assert not generate.is_complete(broken, SMALL)
    assert ensure_synthetic(tmp_path, SMALL, workers=0) == broken
    assert contents(broken) == contents(folder)
    assert os.listdir(tmp_path) == [broken.name]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return make_sample(*args, **kwargs)

    monkeypatch.setattr(generate, "make_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_synthetic(tmp_path, SMALL, workers=0)
    assert os.listdir(tmp_path) == []


def test_the_winner_of_a_race_is_kept(folder, tmp_path, monkeypatch):
    generate_here = generate._generate

    def slower_than_another_process(building, spec, workers):
        generate_here(building, spec, workers)
        shutil.copytree(folder, tmp_path / spec.folder_name)
        (tmp_path / spec.folder_name / "theirs").touch()

    monkeypatch.setattr(generate, "_generate", slower_than_another_process)
    ours = ensure_synthetic(tmp_path, SMALL, workers=0)
    assert (ours / "theirs").exists()
    assert os.listdir(tmp_path) == [ours.name]


def test_a_full_disk_is_explained_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"disk is full.*DATASETS\.ROOT_DIR.*SYNTHETIC\.TRAIN_IMAGES"):
        ensure_synthetic(tmp_path, SMALL, workers=0)
    assert os.listdir(tmp_path) == []


def test_a_root_that_cannot_be_written_to_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"synthetic set.*file.*DATASETS\.ROOT_DIR"):
        ensure_synthetic(tmp_path / "file" / "datasets", SMALL, workers=0)


def test_a_worker_needs_no_torch():
    code = "import sys, data.synthetic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_contact_sheet_has_the_size_that_was_asked_for(folder, tmp_path):
    contact_sheet(folder, tmp_path / "sheet.png", ids=2, images_per_id=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        # There are 2 margins of 10, 3 images of three 72-pixel tiles 8 apart, and 2 rows of 15 + 144, 8 apart.
        assert sheet.size == (2 * 10 + 3 * 216 + 2 * 8, 2 * 10 + 2 * 159 + 8)
    with pytest.raises(UserError, match="no images"):
        contact_sheet(tmp_path, tmp_path / "none.png")


# -------------------------------------------------------------------------------------------------------------- spec
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_ids": 0}, r"SYNTHETIC\.TRAIN_IDS is 0"),
        ({"test_ids": -1}, r"SYNTHETIC\.TEST_IDS is -1"),
        ({"test_ids": 2.5}, r"SYNTHETIC\.TEST_IDS is 2\.5"),
        ({"train_images": 95}, r"SYNTHETIC\.TRAIN_IMAGES is 95.*SYNTHETIC\.TRAIN_IDS.*96 or more"),
        ({"test_images": 39}, r"SYNTHETIC\.TEST_IMAGES is 39.*SYNTHETIC\.TEST_IDS.*40 or more"),
        ({"train_ids": 999_990, "train_images": 2_000_000}, r"TRAIN_IDS is 999990.*at most 999999"),
        ({"size_hw": (256, 15)}, r"SYNTHETIC\.SIZE is 15"),
        ({"size_hw": (256,)}, r"SYNTHETIC\.SIZE is \(256,\)"),
        ({"difficulty": 1.01}, r"SYNTHETIC\.DIFFICULTY is 1\.01"),
        ({"difficulty": float("nan")}, r"SYNTHETIC\.DIFFICULTY is nan"),
        ({"off_centre": -0.1}, r"SYNTHETIC\.OFF_CENTRE is -0\.1"),
        ({"off_centre": 1.01}, r"SYNTHETIC\.OFF_CENTRE is 1\.01"),
        ({"off_centre": float("nan")}, r"SYNTHETIC\.OFF_CENTRE is nan"),
        ({"seed": -1}, r"SYNTHETIC\.SEED is -1"),
    ],
)
def test_bad_specs_are_refused_by_key(change, message):
    with pytest.raises(UserError, match=message):
        replace(LARGER, **change)


def test_images_are_spread_evenly():
    spec = replace(SMALL, train_ids=171, train_images=3951, test_ids=30, test_images=836)
    for split, images in (("train", 3951), ("test", 836)):
        counts = [spec.num_images(split, index) for index in range(spec.num_ids(split))]
        assert sum(counts) == images and max(counts) - min(counts) <= 1


# ------------------------------------------------------------------------------------------------ benchmark property
def test_channels_run_in_the_order_of_the_modalities():
    assert tuple(CHANNELS) == MODALITIES


def oracle_map(seed: int, known: tuple[str, ...], images_per_id: int = 8, num_ids: int = 20) -> float:
    """Return the mAP of an oracle that reads the true attributes of the known modalities.

    The protocol ignores the same camera. Ties are broken at random, because the oracle cannot tell such images apart.
    """
    identities = [make_identity(seed, 1, index) for index in range(num_ids)]
    codes = [tuple(identity.codes[name] for name in known) for identity in identities]
    pid = np.repeat(np.arange(num_ids), images_per_id)
    camera = np.arange(len(pid)) % 2
    distance = np.array([[sum(a != b for a, b in zip(codes[i], codes[j], strict=True)) for j in pid] for i in pid])
    tie_break = np.random.default_rng(0).random(distance.shape)
    average_precisions = []
    for query in range(len(pid)):
        kept = ~((pid == pid[query]) & (camera == camera[query]))
        order = np.lexsort((tie_break[query, kept], distance[query, kept]))
        hit = (pid[kept] == pid[query])[order]
        precision = hit.cumsum() / np.arange(1, len(hit) + 1)
        average_precisions.append(precision[hit].mean())
    return float(np.mean(average_precisions))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_modality_suffices_and_together_they_do(seed):
    for name in MODALITIES:
        assert oracle_map(seed, (name,)) < 0.7
        assert oracle_map(seed, tuple(set(MODALITIES) - {name})) > 0.99
    assert oracle_map(seed, MODALITIES) == 1.0


@pytest.mark.parametrize(("split", "num_ids"), [(0, 171), (1, 30)])
def test_identities_collide_in_each_modality_and_in_no_two(split, num_ids):
    codes = [make_identity(0, split, index).codes for index in range(num_ids)]
    for name in MODALITIES:
        shared = Counter(code[name] for code in codes)
        assert np.mean([shared[code[name]] > 1 for code in codes]) > 0.75
        pairs = Counter(tuple(code[other] for other in MODALITIES if other != name) for code in codes)
        assert max(pairs.values()) == 1


def test_modalities_say_nothing_about_each_other():
    """Over many people, the brightness of the clothes is uncorrelated between the modalities."""
    clothes = [SLOTS.index("upper"), SLOTS.index("lower")]
    materials = np.array([make_identity(seed, 0, index).materials for seed in range(40) for index in range(27)])
    brightness = np.stack([materials[:, clothes, 0, part].mean(axis=-1) for part in CHANNELS.values()])  # (M, N, 2)
    # Three looks of each of 120 cohorts are 360 independent values, so chance stays within about 0.15.
    for garment in range(len(clothes)):
        correlation = np.corrcoef(brightness[:, :, garment])
        assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.15


def test_clothes_come_from_short_palettes_and_are_repeatable():
    for index in range(30):
        materials = make_identity(5, 0, index).materials
        for slot, palette in (("upper", UPPER_RGB), ("lower", LOWER_RGB)):
            colour = materials[SLOTS.index(slot), 0, :3]
            assert np.abs(np.array(palette) - colour).max(axis=1).min() < 0.08
    assert np.array_equal(make_identity(5, 0, 3).materials, make_identity(5, 0, 3).materials)
