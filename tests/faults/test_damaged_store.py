"""The decoded store is damaged between and during runs, but the results remain those of the images."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from data.datasets.rgbnt201 import RGBNT201
from data.loading.store import open_store
from tests.helpers.runs import equal, records, weights
from tests.helpers.trees import write_image, write_rgbnt201


@pytest.fixture
def whole(tmp_path):
    """Return a store of six samples of 8 x 4 pixels, and the samples."""
    samples = RGBNT201.parse(write_rgbnt201(tmp_path / "set", train_ids=3, test_ids=1, images_per_id=2))["train"]
    return open_store(samples, size_hw=(8, 4), cache_dir=tmp_path / "cache", workers=1), samples


def test_any_bit_of_the_header_may_flip(whole):
    """Flip every bit of the signature and lengths and one of each later byte: the store is rebuilt if necessary."""
    store, samples = whole
    expected, content = np.array(store.images), store.path.read_bytes()
    header = len(content) - expected.nbytes
    rebuilt = 0
    for bit in [*range(8 * 10), *(8 * byte + byte % 8 for byte in range(10, header))]:
        flipped = bytearray(content[:header])
        flipped[bit // 8] ^= 1 << bit % 8
        store.path.unlink()  # not in place: what is mapped would change with it
        store.path.write_bytes(bytes(flipped) + content[header:])
        opened = open_store(samples, size_hw=(8, 4), cache_dir=store.path.parent, workers=1)
        assert opened.images.shape == expected.shape and np.array_equal(opened.images, expected), bit
        rebuilt += opened.path.read_bytes() == content
    assert rebuilt > 150
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


def _delete_one(store):
    next(store.glob("*.npy")).unlink()


def _delete_the_folder(store):
    shutil.rmtree(store)


def _truncate(store):
    for path in store.glob("*.npy"):
        os.truncate(path, path.stat().st_size - 100)


def _garble(store):
    for path in store.glob("*.npy"):
        path.write_bytes(b"\x93NUMPY" + bytes(range(256)))


def _put_a_folder_in_its_place(store):
    path = next(store.glob("*.npy"))
    path.unlink()
    path.mkdir()


@pytest.mark.slow
def test_damage_between_runs_changes_no_metric(launch, small, tmp_path):
    """Train one epoch per run and damage the store in between."""
    whole, parts, store = tmp_path / "whole", tmp_path / "parts", tmp_path / "data" / ".decoded"
    damages = [_delete_one, _delete_the_folder, _truncate, _garble]
    argv = ["--config_file", small, "--resume", "auto", "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.MIN_LR_FACTOR", 1]
    launch("train_net", *argv, "SOLVER.MAX_EPOCHS", len(damages) + 1, "OUTPUT_DIR", whole).ends_well()
    for epoch, damage in enumerate([None, *damages], start=1):
        if damage is not None:
            damage(store)
        launch("train_net", *argv, "SOLVER.MAX_EPOCHS", epoch, "OUTPUT_DIR", parts).ends_well()
    assert records(parts) == records(whole)


def test_a_folder_in_the_stores_place_is_refused(launch, small, tmp_path):
    store = tmp_path / "data" / ".decoded"
    launch("train_net", "--config_file", small).ends_well()
    _put_a_folder_in_its_place(store)
    launch("train_net", "--config_file", small).is_refused(str(store), "DATALOADER.CACHE_DIR")
    assert not list(store.glob("*.tmp"))


@pytest.mark.slow
def test_changed_images_are_seen_by_the_next_run(launch, small, tmp_path):
    """The old store is outdated: the run has the metrics of one that never had a store."""
    launch("train_net", "--config_file", small, "OUTPUT_DIR", tmp_path / "before").ends_well()
    for i, path in enumerate(sorted((tmp_path / "data").glob("RGBNT201/train_171/RGB/*"))):
        write_image(path, seed=1000 + i)
    for cache in ("auto", "off"):
        argv = ["DATALOADER.CACHE", cache, "OUTPUT_DIR", tmp_path / cache]
        launch("train_net", "--config_file", small, *argv).ends_well()
    assert records(tmp_path / "auto") == records(tmp_path / "off") != records(tmp_path / "before")


def _build_slowly():
    """Decode each image in the child in 20 ms, so that builders overlap."""
    import time

    from data.loading import store

    decode = store.decode_sample
    store.decode_sample = lambda *args: time.sleep(0.02) or decode(*args)


def _die_in_building():
    """Kill the child at its tenth image."""
    from data.loading import store

    decode, done = store.decode_sample, []

    def dying(*args):
        done.append(1)
        if len(done) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(*args)

    store.decode_sample = dying


@pytest.mark.slow
def test_runs_that_build_one_store_at_once_survive_the_kill_of_one(launch, small, tmp_path):
    runs = [
        launch("train_net", "--config_file", small, "OUTPUT_DIR", tmp_path / name, before=(before,))
        for name, before in (("a", _build_slowly), ("dead", _die_in_building), ("b", _build_slowly))
    ]
    assert runs[1].wait() == -signal.SIGKILL
    runs[0].ends_well()
    runs[2].ends_well()
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert equal(*(weights(tmp_path / name) for name in "ab"))
    store = tmp_path / "data" / ".decoded"
    assert len(list(store.glob("*.npy"))) == 2 and len(list(store.glob("*.tmp"))) <= 1, (
        "the killed run's file stays for an hour"
    )


def _kill_a_worker():
    """Kill a process of the child's loader in the second epoch."""
    from engine.train import Trainer

    step = Trainer.train_step

    def killing(trainer, batch):
        if (trainer.state.epoch, trainer.state.step) == (1, 0):
            os.kill(trainer.loader._iterator._workers[0].pid, signal.SIGKILL)
        return step(trainer, batch)

    Trainer.train_step = killing


@pytest.mark.slow
def test_a_loader_process_that_is_killed_ends_the_run_with_a_reason(launch, small, tmp_path):
    argv = ["--config_file", small, "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_EPOCHS", 4]
    launch("train_net", *argv, before=(_kill_a_worker,)).is_refused("A process of the loader", "DATALOADER.NUM_WORKERS")
    assert torch.load(tmp_path / "out" / "last.pth", weights_only=True)["epoch"] >= 1
    launch("train_net", *argv, "--resume", "auto").ends_well()
