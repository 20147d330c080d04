"""Batch samplers whose order is a function of (seed, epoch), and which can start in mid-epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from utils.errors import UserError


class EpochBatchSampler:
    """Gives the batches of an epoch, planned as a whole when the epoch is set."""

    def __init__(self, *, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Plan `epoch`; iteration begins at `start_batch`."""
        self.batches = self.plan(np.random.default_rng((self.seed, epoch)))
        self.start_batch = start_batch

    def plan(self, rng: np.random.Generator) -> list[list[int]]:
        """The batches of an epoch, as positions in the data set."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches[self.start_batch :])

    def __len__(self) -> int:
        """Batches of the whole epoch, those before `start_batch` included."""
        return len(self.batches)


class IdentityBatchSampler(EpochBatchSampler):
    """Batches of P identities with K images each (Hermans et al., arXiv:1703.07737).

    In an epoch each identity's images are shuffled and cut into groups of K; an incomplete last group is left out, and
    an identity with fewer than K images in all is resampled to one group. Batches take one group from each of P random
    identities until fewer than P have groups left.

    Args:
        pids: identity of every image.
        batch_size: P x K.
        num_instances: K.

    Raises:
        UserError: K does not divide the batch, or there are fewer than P identities.
    """

    def __init__(self, pids: Sequence[int], *, batch_size: int, num_instances: int, seed: int) -> None:
        self.num_instances = num_instances
        self.num_ids_per_batch, rest = divmod(batch_size, num_instances)
        if rest:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch_size}, which DATALOADER.NUM_INSTANCE {num_instances} does not divide. "
                "Make the batch a multiple of it."
            )
        indices = defaultdict(list)
        for index, pid in enumerate(pids):
            indices[pid].append(index)
        self.indices = [np.array(indices[pid]) for pid in sorted(indices)]
        if self.num_ids_per_batch > len(self.indices):
            raise UserError(
                f"A batch of SOLVER.IMS_PER_BATCH {batch_size} with DATALOADER.NUM_INSTANCE {num_instances} holds "
                f"{self.num_ids_per_batch} identities, but the training set has {len(self.indices)}. Lower "
                "IMS_PER_BATCH or "
                "raise NUM_INSTANCE."
            )
        super().__init__(batch_size=batch_size, seed=seed)

    def plan(self, rng: np.random.Generator) -> list[list[int]]:
        """See the class."""
        groups = [self._groups(images, rng) for images in self.indices]
        left = [i for i, of_id in enumerate(groups) if of_id]
        batches = []
        while len(left) >= self.num_ids_per_batch:
            chosen = rng.choice(left, self.num_ids_per_batch, replace=False)
            batches.append([int(index) for i in chosen for index in groups[i].pop()])
            left = [i for i in left if groups[i]]
        return batches

    def _groups(self, images: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        size = self.num_instances
        if len(images) < size:
            extra = rng.choice(images, size - len(images))
            return [rng.permutation(np.concatenate([images, extra]))]
        shuffled = rng.permutation(images)
        return [shuffled[i : i + size] for i in range(0, len(shuffled) - size + 1, size)]


class ShuffledBatchSampler(EpochBatchSampler):
    """Shuffled batches; an incomplete last one is left out.

    Raises:
        UserError: there is less than one batch of samples.
    """

    def __init__(self, num_samples: int, *, batch_size: int, seed: int) -> None:
        if num_samples < batch_size:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch_size}, but the training set has {num_samples} images. Lower it."
            )
        self.num_samples = num_samples
        super().__init__(batch_size=batch_size, seed=seed)

    def plan(self, rng: np.random.Generator) -> list[list[int]]:
        """See the class."""
        order = rng.permutation(self.num_samples).tolist()
        size = self.batch_size
        return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
