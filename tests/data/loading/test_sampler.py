"""The samplers keep their rules in every batch of several epochs."""

from collections import Counter

import numpy as np
import pytest
import torch

from data.loading.sampler import IdentityBatchSampler, ShuffledBatchSampler
from utils.errors import UserError

K = 4
ALONE = {"process_rank": 0, "num_processes": 1}
IMAGES_PER_ID = {3: 9, 8: 4, 11: 2, 20: 17, 21: 1, 30: 8, 31: 5, 40: 12}


@pytest.fixture
def pids():
    """Return identities that are neither labels nor sorted."""
    pids = [pid for pid, count in IMAGES_PER_ID.items() for _ in range(count)]
    return np.random.default_rng(0).permutation(pids).tolist()


def identity_sampler(pids, *, ids_per_batch=3, seed=7):
    return IdentityBatchSampler(pids, batch_size=ids_per_batch * K, num_instances=K, seed=seed, **ALONE)


def epochs(sampler, count=20):
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield list(sampler)


def test_a_batch_is_p_distinct_identities_of_k_images(pids):
    for batches in epochs(identity_sampler(pids)):
        for batch in batches:
            batch_pids = np.array(pids)[batch].reshape(3, K)
            assert (batch_pids == batch_pids[:, :1]).all() and len(set(batch_pids[:, 0])) == 3
            assert all(isinstance(index, int) for index in batch)


def test_an_image_comes_once_unless_its_identity_has_too_few(pids):
    for batches in epochs(identity_sampler(pids)):
        for index, times in Counter(index for batch in batches for index in batch).items():
            assert times == 1 or IMAGES_PER_ID[pids[index]] < K


def test_an_epoch_goes_on_until_fewer_than_p_identities_have_groups_left(pids):
    """An identity has one group per K images, but at least one."""
    groups = {pid: max(1, count // K) for pid, count in IMAGES_PER_ID.items()}
    for batches in epochs(identity_sampler(pids)):
        used = Counter(pids[batch[i]] for batch in batches for i in range(0, len(batch), K))
        unused = {pid: groups[pid] - used[pid] for pid in groups}
        assert min(unused.values()) >= 0
        assert sum(count > 0 for count in unused.values()) < 3


def test_identities_with_too_few_images_are_drawn_with_replacement(pids):
    """Two images can fill K = 4 slots in 2^4 ways, all of which appear over the epochs."""
    ways = set()
    for batches in epochs(identity_sampler(pids), 400):
        for batch in batches:
            for group in np.reshape(batch, (3, K)).tolist():
                if pids[group[0]] == 11:
                    ways.add(tuple(group))
    assert len(ways) == 2**K


def test_the_dropped_images_change_from_epoch_to_epoch(pids):
    used = [{index for batch in batches for index in batch} for batches in epochs(identity_sampler(pids))]
    assert set.union(*used) == set(range(len(pids)))
    assert set.intersection(*used) != set(range(len(pids)))


def test_the_length_is_that_of_the_current_epoch(pids):
    sampler = identity_sampler(pids)
    lengths = set()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
        lengths.add(len(sampler))
    assert len(lengths) > 1  # otherwise this would not test that the length follows the epoch


@pytest.fixture(params=["identity", "shuffled"])
def make_sampler(request, pids):
    """Return a function that makes a sampler from a seed, for each of the two."""
    if request.param == "identity":
        return lambda seed=7: identity_sampler(pids, seed=seed)
    return lambda seed=7: ShuffledBatchSampler(len(pids), batch_size=12, seed=seed, **ALONE)


def test_the_order_is_a_function_of_seed_and_epoch(make_sampler):
    sampler = make_sampler()
    orders = list(epochs(sampler, 5))
    np.random.seed(1)
    torch.manual_seed(1)
    again = make_sampler()
    again.set_epoch(3)
    assert list(again) == orders[3] == list(again)
    assert len({str(order) for order in orders}) == 5
    other = make_sampler(8)
    other.set_epoch(3)
    assert list(other) != orders[3]


def test_the_global_random_states_are_left_alone(make_sampler):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    list(make_sampler())
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])


def test_a_resumed_epoch_begins_where_it_stopped(make_sampler):
    sampler = make_sampler()
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start_batch=2)
    assert list(sampler) == whole[2:]
    assert len(sampler) == len(whole) == len(sampler.batches)
    sampler.set_epoch(3)
    assert len(list(sampler)) == len(sampler)


def test_a_shuffled_epoch_has_every_sample_at_most_once():
    for batches in epochs(ShuffledBatchSampler(50, batch_size=12, seed=0, **ALONE)):
        assert [len(batch) for batch in batches] == [12] * 4
        assert len({index for batch in batches for index in batch}) == 48


@pytest.mark.parametrize(
    ("batch_size", "num_instances"),
    [(10, 4), (0, 4), (8, 0)],
)
def test_a_batch_that_is_not_whole_identities_is_refused(pids, batch_size, num_instances):
    with pytest.raises(ValueError, match=f"num_instances {num_instances} does not divide batch_size {batch_size}"):
        IdentityBatchSampler(pids, batch_size=batch_size, num_instances=num_instances, seed=0, **ALONE)


def test_a_batch_of_more_identities_than_there_are_is_refused(pids):
    with pytest.raises(UserError) as error:
        IdentityBatchSampler(pids, batch_size=36, num_instances=4, seed=0, **ALONE)
    for part in ("needs 9 identities", "there are 8", "32 or less", "raise DATALOADER.NUM_INSTANCE"):
        assert part in str(error.value)


def test_one_batch_may_hold_all_identities(pids):
    assert len(IdentityBatchSampler(pids, batch_size=32, num_instances=4, seed=0, **ALONE)) == 1


@pytest.mark.parametrize("batch_size", [51, 0])
def test_a_batch_larger_than_the_set_is_refused(batch_size):
    with pytest.raises(UserError, match=f"SOLVER.IMS_PER_BATCH is {batch_size}.* 50 samples"):
        ShuffledBatchSampler(50, batch_size=batch_size, seed=0, **ALONE)


def test_processes_share_each_batch_by_whole_identities(pids):
    whole = identity_sampler(pids, ids_per_batch=6)
    parts = [
        IdentityBatchSampler(pids, batch_size=6 * K, num_instances=K, seed=7, process_rank=rank, num_processes=3)
        for rank in range(3)
    ]
    for sampler in (whole, *parts):
        sampler.set_epoch(4, start_batch=1)
    batches = list(whole)
    assert batches and all(len(part) == len(whole) for part in parts)
    for batch, *shares in zip(batches, *parts, strict=True):
        assert np.concatenate(shares).tolist() == batch
        owners = [{pids[index] for index in share} for share in shares]
        assert [len(owned) for owned in owners] == [2, 2, 2] and len(set.union(*owners)) == 6


def test_a_batch_that_processes_cannot_share_is_refused(pids):
    with pytest.raises(UserError, match=r"IMS_PER_BATCH is 24: 6 identities.* 4 processes.*a multiple of 16"):
        IdentityBatchSampler(pids, batch_size=6 * K, num_instances=K, seed=7, process_rank=0, num_processes=4)
    with pytest.raises(UserError, match=r"IMS_PER_BATCH is 9: 9 images.* 2 processes.*a multiple of 2"):
        ShuffledBatchSampler(20, batch_size=9, seed=0, process_rank=0, num_processes=2)
