"""A batch travels whole, with a mask or without."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from tests.helpers.batches import labelled


@pytest.mark.parametrize("mask", [None, torch.full((2, 4, 4), 255, dtype=torch.uint8)], ids=["bare", "masked"])
@pytest.mark.parametrize("travel", [lambda batch: batch.to("meta"), lambda batch: batch.pin_memory()])
def test_every_tensor_travels_and_no_mask_stays_none(mask, travel, monkeypatch):
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.to("meta"))  # needs no GPU
    batch = labelled([3, 5])
    batch.mask = mask
    moved = travel(batch)
    assert (moved.mask is None) == (mask is None)
    tensors = [tensor for field in fields(moved) if (tensor := getattr(moved, field.name)) is not None]
    assert len(tensors) == (5 if mask is None else 6) and all(tensor.is_meta for tensor in tensors)


def test_a_change_is_made_to_every_tensor():
    batch = labelled([3, 5, 7])
    batch.mask = torch.zeros(3, 4, 4, dtype=torch.uint8)
    first = batch.apply(lambda tensor: tensor[:2])
    assert first.pid.tolist() == [3, 5] and len(first.images) == len(first.mask) == len(first) == 2
