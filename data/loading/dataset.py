"""Read whole batches from the decoded store."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.loading.store import GIB, ImageStore
from data.sample import Batch, Sample
from utils.errors import UserError

ROWS_PER_COPY = 256  # One copy to the device moves this many samples, which are in host memory at once.


class StoreDataset(Dataset):
    """Index a store by whole batches: `DataLoader(dataset, batch_sampler=..., collate_fn=identity)`.

    Args:
        store: decoded images.
        samples: the samples that the store was made from, in its order.
        labels: (N,) training labels; None uses the identities instead.
        masks: (N, H, W) uint8 masks of the objects, which the batches then carry.
    """

    def __init__(
        self,
        store: ImageStore,
        samples: Sequence[Sample],
        labels: np.ndarray | None = None,
        masks: np.ndarray | None = None,
    ) -> None:
        assert len(store.images) == len(samples), (len(store.images), len(samples))
        pids = [sample.pid for sample in samples] if labels is None else labels
        assert len(pids) == len(samples), (len(pids), len(samples))
        self.store = store
        self._resident: Tensor | None = None  # the images, where they are held on a device
        self._columns = {
            "present": torch.from_numpy(store.present),
            "pid": torch.as_tensor(pids, dtype=torch.int64),
            "camera": torch.tensor([sample.camera for sample in samples]),
        }
        if masks is not None:
            expected = (len(samples), *store.images.shape[-2:])
            assert masks.shape == expected, (masks.shape, expected)
            self._columns["mask"] = torch.from_numpy(masks)

    def to(self, device: torch.device | str) -> StoreDataset:
        """Return the data set with everything held on `device`, where its batches are then made.

        Raises:
            UserError: the device has too little memory.
        """
        images = self.store.images
        try:
            resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
            columns = {name: column.to(device) for name, column in self._columns.items()}
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"DATALOADER.CACHE: device needs {images.nbytes / GIB:.2f} GiB for decoded images on {device}, which "
                "has less memory left. Set DATALOADER.CACHE: auto."
            ) from error
        for start in range(0, len(images), ROWS_PER_COPY):
            rows = np.array(images[start : start + ROWS_PER_COPY])  # copied, because torch accepts no read-only memory
            resident[start : start + ROWS_PER_COPY] = torch.from_numpy(rows)
        moved = copy.copy(self)
        moved._resident, moved._columns = resident, columns
        return moved

    def __len__(self) -> int:
        return len(self.store.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of these samples, in this order."""
        index = torch.tensor(indices)
        if self._resident is None:
            images = torch.from_numpy(self.store.images[index.numpy()])
        else:
            if self._resident.is_cuda:
                index = index.pin_memory()  # otherwise the copy would wait for the device
            index = index.to(self._resident.device, non_blocking=True)
            images = self._resident.index_select(0, index)
        return Batch(images=images, index=index, **{name: column[index] for name, column in self._columns.items()})
