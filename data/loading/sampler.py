"""Plan which samples go into which batch, by (seed, epoch) alone and before the first image is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from utils.errors import UserError


class EpochBatchSampler(Sampler[list[int]], ABC):
    """Yield batches of sample positions, planned per epoch from (seed, epoch).

    `set_epoch(epoch, start_batch)` skips the batches that an interrupted run has finished, without decoding them.
    Several processes each get one of equal, contiguous parts of every batch; `batches` and the length still describe
    whole batches.

    Args:
        seed: seed of the order.
        process_rank: number of this process, from 0.
        num_processes: how many processes share the batches.
    """

    def __init__(self, *, seed: int, process_rank: int, num_processes: int) -> None:
        self.seed = seed
        self.process_rank = process_rank
        self.num_processes = num_processes
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch, counted from 0, and the batch to begin it with."""
        self.epoch = epoch
        self.start_batch = start_batch
        self._batches: np.ndarray | None = None

    @abstractmethod
    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the epoch's batches: (num_batches, batch_size) positions."""

    @property
    def batches(self) -> np.ndarray:
        """Return the positions (num_batches, batch_size) of the whole epoch, also those before `start_batch`."""
        if self._batches is None:
            self._batches = self._plan(np.random.default_rng((self.seed, self.epoch)))
        return self._batches

    def __len__(self) -> int:
        """Return the number of batches of the whole epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batches.shape[1] // self.num_processes
        own = slice(self.process_rank * share, (self.process_rank + 1) * share)
        return iter(self.batches[self.start_batch :, own].tolist())


class IdentityBatchSampler(EpochBatchSampler):
    """Draw P identities x K images per batch, for the batch-hard triplet loss (Hermans et al., arXiv:1703.07737).

    As in TransReID and fast-reid, every identity's images are shuffled and cut into groups of K. An incomplete
    last group is left out; an identity with fewer than K images gives one group drawn with replacement. Batches of P
    distinct identities are then drawn from those with groups left, until fewer than P have any.

    Args:
        pids: identity or label of each sample.
        batch_size: P x K images.
        num_instances: K.
        options: the arguments of every EpochBatchSampler. Each process gets whole identities.

    Raises:
        UserError: there are fewer than P identities, or the processes cannot share P equally.
    """

    def __init__(self, pids: Sequence[int], *, batch_size: int, num_instances: int, **options: int) -> None:
        if num_instances < 1 or batch_size < 1 or batch_size % num_instances:
            raise ValueError(f"num_instances {num_instances} does not divide batch_size {batch_size}")
        num_ids = len(set(pids))
        self.ids_per_batch = batch_size // num_instances
        if self.ids_per_batch > num_ids:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH {batch_size} with DATALOADER.NUM_INSTANCE {num_instances} needs "
                f"{self.ids_per_batch} identities in a batch, but there are {num_ids} to train on. Lower "
                f"SOLVER.IMS_PER_BATCH to {num_ids * num_instances} or less, or raise DATALOADER.NUM_INSTANCE."
            )
        _check_shares(self.ids_per_batch, "identities", num_instances, options["num_processes"])
        self.num_instances = num_instances
        order = np.argsort(pids, kind="stable")
        starts = np.unique(np.asarray(pids)[order], return_index=True)[1][1:]
        self._positions_by_id = np.split(order, starts)
        super().__init__(**options)

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        groups = [self._draw_groups(positions, rng) for positions in self._positions_by_id]
        groups_left = np.array([len(id_groups) for id_groups in groups])
        batches = []
        while len(eligible := np.flatnonzero(groups_left)) >= self.ids_per_batch:
            chosen = rng.choice(eligible, self.ids_per_batch, replace=False)
            groups_left[chosen] -= 1
            batches.append(np.concatenate([groups[i][groups_left[i]] for i in chosen]))
        return np.stack(batches)

    def _draw_groups(self, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one identity's images of the epoch: (groups, K)."""
        if len(positions) < self.num_instances:
            return rng.choice(positions, (1, self.num_instances))
        num_groups = len(positions) // self.num_instances
        return rng.permutation(positions)[: num_groups * self.num_instances].reshape(num_groups, -1)


class ShuffledBatchSampler(EpochBatchSampler):
    """Draw every sample at most once per epoch, in random order; an incomplete last batch is left out.

    Raises:
        UserError: there are too few samples for one batch, or the processes cannot share it equally.
    """

    def __init__(self, num_samples: int, *, batch_size: int, **options: int) -> None:
        if not 1 <= batch_size <= num_samples:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch_size}, but there are {num_samples} samples to train on. Set it to "
                f"between 1 and {num_samples}."
            )
        _check_shares(batch_size, "images", 1, options["num_processes"])
        self.num_samples = num_samples
        self.batch_size = batch_size
        super().__init__(**options)

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        num_batches = self.num_samples // self.batch_size
        return rng.permutation(self.num_samples)[: num_batches * self.batch_size].reshape(num_batches, -1)


def _check_shares(count: int, unit: str, images_per_unit: int, num_processes: int) -> None:
    """Make sure that the processes can share a batch of `count` identities or images equally."""
    if count % num_processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {count * images_per_unit}: {count} {unit} a batch, which {num_processes} "
            f"processes cannot share equally. Set SOLVER.IMS_PER_BATCH to a multiple of "
            f"{num_processes * images_per_unit}, or start another number of processes (torchrun --nproc_per_node)."
        )
