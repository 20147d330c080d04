"""Sums, means and the watch over non-finite losses."""

import pytest
import torch

from engine.loss_meter import LossMeter
from utils.errors import UserError

CPU = torch.device("cpu")


def losses(total, triplet):
    return {"total": torch.tensor(total, requires_grad=True), "triplet": torch.tensor(triplet)}


def test_means_and_latest_losses_by_hand():
    meter = LossMeter(1, sums={}, step=0, device=CPU)
    assert meter.latest == {}
    meter.push(losses(3.0, 1.0))
    meter.push(losses(5.0, 2.0))
    assert meter.latest == {"total": 5.0, "triplet": 2.0}
    assert meter.means() == {"total": 4.0, "triplet": 1.5} and meter.sums() == {"total": 8.0, "triplet": 3.0}


def test_an_interrupted_epoch_continues_with_its_sums_bit_by_bit():
    values = torch.rand(7, generator=torch.Generator().manual_seed(0)).tolist()
    whole = LossMeter(1, sums={}, step=0, device=CPU)
    for value in values:
        whole.push(losses(value, 0.1))
    first = LossMeter(1, sums={}, step=0, device=CPU)
    for value in values[:3]:
        first.push(losses(value, 0.1))
    second = LossMeter(1, sums=first.sums(), step=first.step, device=CPU)
    for value in values[3:]:
        second.push(losses(value, 0.1))
    assert second.means() == whole.means() and second.step == 7


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_non_finite_loss_is_named_with_its_step(broken):
    meter = LossMeter(2, sums={"total": 1.0, "triplet": 1.0}, step=4, device=CPU)
    meter.push(losses(1.0, 1.0))
    with pytest.raises(UserError, match=rf"Non-finite loss at epoch 2, step 6: total = 1, triplet = {broken:g}\. "):
        meter.push(losses(1.0, broken))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_losses_are_read_one_step_later():
    meter = LossMeter(1, sums={}, step=0, device=torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for value in (1.0, float("nan")):
            meter.push({"total": torch.full((), value, device="cuda")})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.latest == {"total": 1.0}
    with pytest.raises(UserError, match="epoch 1, step 2"):
        meter.means()
