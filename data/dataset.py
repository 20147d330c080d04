"""A data set of decoded images that hands out whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from data.records import Batch, Sample
from data.store import ImageStore


class StoreDataset(Dataset):
    """Batches of a decoded store by index: one copy of the pixels, nothing per sample.

    Args:
        store: the pixels of `samples`, in their order.
        labels: (N,) training labels; None gives the samples' own identities.
    """

    def __init__(self, store: ImageStore, samples: Sequence[Sample], labels: np.ndarray | None) -> None:
        self.store = store
        pids = labels if labels is not None else [sample.pid for sample in samples]
        self.pid = torch.as_tensor(np.asarray(pids), dtype=torch.int64)
        self.camera = torch.tensor([sample.camera for sample in samples], dtype=torch.int64)
        self.scene = torch.tensor([sample.scene for sample in samples], dtype=torch.int64)
        self.present = torch.from_numpy(store.present)

    def __len__(self) -> int:
        return len(self.pid)

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.tensor(indices, dtype=torch.int64)
        return Batch(
            images=self.store.gather(index),
            present=self.present[index],
            pid=self.pid[index],
            camera=self.camera[index],
            scene=self.scene[index],
            index=index,
        )
