"""The decoded store holds the images of the samples, is reused, is rebuilt when damaged, and fails with a reason."""

import errno
import multiprocessing
import os
import pickle
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.datasets.rgbnt201 import RGBNT201
from data.loading import store
from data.loading.decode import decode_sample
from data.loading.store import open_store
from data.sample import Sample
from tests.helpers.trees import write_image, write_rgbnt201
from utils.errors import UserError
from utils.files import atomic_write

SIZE = (16, 8)


@pytest.fixture
def samples(tmp_path):
    """Write six samples of 64 x 32 pixels and return them."""
    write_rgbnt201(tmp_path / "set", train_ids=3, test_ids=1, images_per_id=2)
    return RGBNT201.parse(tmp_path / "set")["train"]


@pytest.fixture
def no_decoding(monkeypatch):
    """Return a function after whose call nothing may be decoded."""

    def fail(*args):
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(store, "decode_sample", fail)


def open_in(folder, samples, size_hw=SIZE):
    return open_store(samples, size_hw=size_hw, cache_dir=folder, workers=2)


def one(path) -> list[Sample]:
    return [Sample((path, None, None), pid=0, camera=0)]


def reference(path, size_hw=SIZE) -> np.ndarray:
    """Return the pixels (3, H, W), straight from Pillow."""
    return np.moveaxis(np.asarray(Image.open(path).resize(size_hw[::-1], Image.Resampling.BICUBIC)), -1, 0)


# ------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("cached", [True, False])
def test_images_are_those_of_the_samples_in_order(tmp_path, samples, cached):
    opened = open_in(tmp_path / "cache" if cached else None, samples)
    assert opened.images.shape == (6, 3, 3, *SIZE) and opened.images.dtype == np.uint8
    assert opened.present.all() and opened.present.shape == (6, 3)
    for i, sample in enumerate(samples):
        for m, path in enumerate(sample.paths):
            np.testing.assert_array_equal(opened.images[i, m], reference(path))


def test_an_image_of_the_right_size_is_left_as_it_is(samples):
    opened = open_in(None, samples, size_hw=(64, 32))
    np.testing.assert_array_equal(opened.images[0, 0], np.moveaxis(np.asarray(Image.open(samples[0].paths[0])), -1, 0))


def test_an_absent_modality_is_black_and_marked(tmp_path, samples):
    rgb, _, ti = samples[0].paths
    opened = open_in(tmp_path / "cache", [Sample((rgb, None, ti), pid=0, camera=0), samples[1]])
    assert opened.present.tolist() == [[True, False, True], [True, True, True]]
    assert not opened.images[0, 1].any() and opened.images[0, 2].any()


# -------------------------------------------------------------------------------------------------------- reuse


def test_the_file_is_mapped_read_only_and_reused(tmp_path, samples, no_decoding):
    first = open_in(tmp_path / "cache", samples)
    no_decoding()
    again = open_in(tmp_path / "cache", samples)
    assert isinstance(again.images, np.memmap) and not again.images.flags.writeable
    np.testing.assert_array_equal(first.images, again.images)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_moved_data_set_is_not_decoded_again(tmp_path, samples, no_decoding):
    open_in(tmp_path / "cache", samples)
    no_decoding()
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    open_in(tmp_path / "cache", RGBNT201.parse(tmp_path / "elsewhere")["train"])


def test_relative_and_absolute_paths_share_a_file(tmp_path, samples, no_decoding, monkeypatch):
    open_in(tmp_path / "cache", samples)
    no_decoding()
    monkeypatch.chdir(tmp_path)
    open_in(tmp_path / "cache", RGBNT201.parse(type(tmp_path)("set"))["train"])


def test_whatever_changes_the_bytes_makes_another_file(tmp_path, samples):
    cache = tmp_path / "cache"
    paths = {open_in(cache, samples).path, open_in(cache, samples, (8, 16)).path, open_in(cache, samples[::-1]).path}
    paths.add(open_in(cache, samples[:5]).path)
    absent = Sample((samples[0].paths[0], None, samples[0].paths[2]), pid=0, camera=0)
    paths.add(open_in(cache, [absent, *samples[1:]]).path)
    changed = samples[0].paths[1]
    write_image(changed, seed=99)
    opened = open_in(cache, samples)
    paths.add(opened.path)
    np.testing.assert_array_equal(opened.images[0, 1], reference(changed))
    assert len(paths) == 6


def test_a_touched_image_of_equal_size_is_decoded_again(tmp_path, samples):
    first = open_in(tmp_path / "cache", samples).path
    status = os.stat(samples[0].paths[0])
    os.utime(samples[0].paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert open_in(tmp_path / "cache", samples).path != first


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _cut_in_the_header(path):
    os.truncate(path, 20)


def _lengthen(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _cut_in_the_header,
        _lengthen,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array at all" * 100),
        lambda path: np.save(path, np.zeros((6, 3, 3, 8, 16), np.uint8)),
        lambda path: np.save(path, np.zeros((6, 3, 3, *SIZE), np.int8)),
        lambda path: np.save(path, np.asfortranarray(np.zeros((6, 3, 3, *SIZE), np.uint8))),
    ],
)
def test_a_damaged_file_is_made_again(tmp_path, samples, damage):
    whole = open_in(tmp_path / "cache", samples)
    content = whole.path.read_bytes()
    whole.path.unlink()  # not written over in place: `whole` still maps it
    whole.path.write_bytes(content)
    damage(whole.path)
    assert whole.path.read_bytes() != content
    opened = open_in(tmp_path / "cache", samples)
    assert opened.path.read_bytes() == content
    np.testing.assert_array_equal(opened.images, whole.images)


def _open_and_report(folder, samples, barrier, queue):
    barrier.wait(timeout=30)
    queue.put(open_in(folder, samples).images.sum())


def test_processes_that_build_at_once_all_succeed(tmp_path, samples):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_open_and_report, args=(tmp_path / "cache", samples, barrier, queue)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    sums = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert set(sums) == {open_in(None, samples).images.sum()}
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


def test_pickling_a_mapped_store_sends_its_path(tmp_path, samples):
    mapped, in_memory = open_in(tmp_path / "cache", samples), open_in(None, samples)
    assert len(pickle.dumps(mapped)) < 2000 < mapped.images.nbytes
    for opened in (mapped, in_memory):
        copied = pickle.loads(pickle.dumps(opened))
        np.testing.assert_array_equal(copied.images, opened.images)
        np.testing.assert_array_equal(copied.present, opened.present)


def test_only_our_own_abandoned_temporaries_are_removed(tmp_path, samples):
    cache = tmp_path / "cache"
    cache.mkdir()
    target = cache / f"16x8_{'0' * 24}.npy"
    with atomic_write(target, "wb", unique=True) as first, atomic_write(target, "wb", unique=True) as second:
        abandoned, in_use = Path(first.name), Path(second.name)
    foreign = cache / "letter.tmp"
    long_ago = time.time() - 2 * store.ABANDONED_AFTER_S
    for path in (abandoned, in_use, foreign):
        path.touch()
    for path in (abandoned, foreign):
        os.utime(path, (long_ago, long_ago))
    open_in(cache, samples)
    assert [path.exists() for path in (abandoned, in_use, foreign)] == [False, True, True]


# ------------------------------------------------------------------------------------------------------- errors


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _zero_bytes(path):
    path.write_bytes(b"")


def _not_an_image(path):
    path.write_text("<html>not found</html>")


def _missing(path):
    path.unlink()


def _dangling_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere.jpg"))


@pytest.mark.parametrize("damage", [_truncate, _zero_bytes, _not_an_image, _missing, _dangling_link])
@pytest.mark.parametrize("cached", [True, False])
def test_a_bad_image_is_named(tmp_path, samples, damage, cached):
    bad = samples[3].paths[2]
    damage(bad)
    cache = tmp_path / "cache"
    with pytest.raises(UserError) as error:
        open_in(cache if cached else None, samples)
    assert str(bad) in str(error.value)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_truncated_png_is_named(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    _truncate(path)
    with pytest.raises(UserError, match=r"image\.png"):
        open_in(None, one(path))


def test_the_first_error_stops_the_decoding(samples, monkeypatch):
    """Only images that were already started are decoded, not the hundreds that wait."""
    _zero_bytes(samples[0].paths[0])
    decoded = []

    def count(sample, size_hw):
        decoded.append(sample)
        time.sleep(0.001)
        return decode_sample(sample, size_hw)

    monkeypatch.setattr(store, "decode_sample", count)
    with pytest.raises(UserError):
        open_store([samples[0], *samples[1:] * 100], size_hw=SIZE, cache_dir=None, workers=1)
    assert len(decoded) < 100


def refused_to_write(folder, samples) -> str:
    with pytest.raises(UserError) as error:
        open_in(folder, samples)
    message = str(error.value)
    assert "DATALOADER.CACHE_DIR" in message and "DATALOADER.CACHE: off" in message and str(folder) in message
    return message


def test_a_disk_that_is_too_small_is_reported_before_decoding(tmp_path, samples, monkeypatch, no_decoding):
    no_decoding()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 990, 10))
    assert "too little space" in refused_to_write(tmp_path / "cache", samples)
    assert not list((tmp_path / "cache").iterdir())


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, samples):
    """A limit on the size of files makes the operating system refuse the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = [Sample(s.paths, s.pid, s.camera, scene) for scene in range(30) for s in samples]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        message = refused_to_write(tmp_path / "cache", many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG) in message
    assert not list((tmp_path / "cache").iterdir())


def test_a_disk_that_fills_up_at_the_end_leaves_nothing_behind(tmp_path, samples, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert os.strerror(errno.ENOSPC) in refused_to_write(tmp_path / "cache", samples)
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_folder_that_cannot_be_made_is_refused(tmp_path, samples):
    (tmp_path / "file").touch()
    refused_to_write(tmp_path / "file" / "cache", samples)


def test_a_whole_file_is_used_where_nothing_can_be_written(tmp_path, samples, monkeypatch, no_decoding):
    open_in(tmp_path / "cache", samples)
    no_decoding()

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    open_in(tmp_path / "cache", samples)
