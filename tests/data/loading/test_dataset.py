"""Batches come out of the store, directly and through the DataLoader."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.datasets.rgbnt201 import RGBNT201
from data.loading.dataset import StoreDataset
from data.loading.sampler import ShuffledBatchSampler
from data.loading.store import open_store
from data.sample import Sample
from tests.helpers.trees import write_rgbnt201

INDICES = [5, 0, 3, 3]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Return eight samples; number 3 lacks NI, and each has its own scene."""
    root = write_rgbnt201(tmp_path_factory.mktemp("set"), train_ids=4, test_ids=1, images_per_id=2)
    samples = RGBNT201.parse(root)["train"]
    absent = [(s.paths[0], None if i == 3 else s.paths[1], s.paths[2]) for i, s in enumerate(samples)]
    return [Sample(absent[i], s.pid + 10, s.camera, scene=i) for i, s in enumerate(samples)]


@pytest.fixture(scope="module", params=["mapped", "in memory"])
def store(request, samples, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("cache") if request.param == "mapped" else None
    return open_store(samples, size_hw=(16, 8), cache_dir=cache_dir, workers=1)


def identity(batch):
    return batch


def test_a_batch_holds_the_samples_asked_for_in_their_order(store, samples):
    dataset = StoreDataset(store, samples)
    batch = dataset.__getitems__(INDICES)
    assert len(dataset) == 8 and len(batch) == 4
    np.testing.assert_array_equal(batch.images.numpy(), np.stack([store.images[i] for i in INDICES]))
    assert batch.images.dtype == torch.uint8
    assert batch.present.tolist() == [[True] * 3, [True] * 3] + [[True, False, True]] * 2
    for name in ("pid", "camera"):
        values = getattr(batch, name)
        assert values.tolist() == [getattr(samples[i], name) for i in INDICES] and values.dtype == torch.int64
    assert batch.index.tolist() == INDICES and batch.index.dtype == torch.int64


def test_labels_take_the_place_of_identities(store, samples):
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    batch = StoreDataset(store, samples, labels).__getitems__(INDICES)
    assert batch.pid.tolist() == labels[INDICES].tolist() and batch.pid.dtype == torch.int64


@pytest.mark.parametrize("resident", [False, True])
def test_masks_join_the_batch_where_there_are_some(store, samples, resident):
    masks = np.random.default_rng(0).integers(0, 256, (8, 16, 8), np.uint8)
    masked, bare = StoreDataset(store, samples, masks=masks), StoreDataset(store, samples)
    if resident:
        masked, bare = masked.to("cpu"), bare.to("cpu")
    batch = masked.__getitems__(INDICES)
    np.testing.assert_array_equal(batch.mask.numpy(), masks[INDICES])
    assert batch.mask.dtype == torch.uint8
    assert bare.__getitems__(INDICES).mask is None


def test_a_batch_is_a_copy(store, samples):
    dataset = StoreDataset(store, samples)
    dataset.__getitems__(INDICES).images.zero_()
    assert dataset.__getitems__(INDICES).images.any()


def test_store_samples_and_labels_must_have_one_length(store, samples):
    with pytest.raises(AssertionError):
        StoreDataset(store, samples[:-1])
    with pytest.raises(AssertionError):
        StoreDataset(store, samples, np.zeros(7, int))
    with pytest.raises(AssertionError):
        StoreDataset(store, samples, masks=np.zeros((7, 16, 8), np.uint8))
    with pytest.raises(AssertionError):
        StoreDataset(store, samples, masks=np.zeros((8, 8, 16), np.uint8))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_samplers_batches(store, samples, num_workers):
    sampler = ShuffledBatchSampler(8, batch_size=3, seed=0, process_rank=0, num_processes=1)
    loader = DataLoader(
        StoreDataset(store, samples), batch_sampler=sampler, collate_fn=identity, num_workers=num_workers
    )
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(loader)
        assert [batch.index.tolist() for batch in batches] == list(sampler)
        for batch in batches:
            np.testing.assert_array_equal(batch.images.numpy(), store.images[batch.index.numpy()])


def test_a_worker_that_is_not_forked_maps_the_same_file(samples, tmp_path):
    store = open_store(samples, size_hw=(16, 8), cache_dir=tmp_path, workers=1)
    loader = DataLoader(
        StoreDataset(store, samples),
        batch_sampler=[INDICES],
        collate_fn=identity,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    (batch,) = loader
    np.testing.assert_array_equal(batch.images.numpy(), store.images[INDICES])


def assert_same_batches(dataset, resident):
    for indices in (INDICES, [1], list(range(8))):
        expected, actual = dataset.__getitems__(indices), resident.__getitems__(indices)
        for name in ("images", "present", "pid", "camera", "index"):
            assert torch.equal(getattr(actual, name).cpu(), getattr(expected, name))


def test_a_store_held_on_a_device_gives_the_same_batches(store, samples, monkeypatch):
    monkeypatch.setattr("data.loading.dataset.ROWS_PER_COPY", 3)  # more than one copy, the last incomplete
    dataset = StoreDataset(store, samples)
    resident = dataset.to("cpu")
    assert resident is not dataset and len(resident) == 8
    assert_same_batches(dataset, resident)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_store_on_the_gpu_makes_its_batches_there_without_waiting(store, samples):
    dataset = StoreDataset(store, samples, masks=np.zeros((8, 16, 8), np.uint8))
    resident = dataset.to("cuda")
    assert_same_batches(dataset, resident)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = resident.__getitems__(INDICES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.images.is_cuda and batch.pid.is_cuda and batch.mask.is_cuda
