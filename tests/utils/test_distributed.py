"""The helpers give in two processes what one process gives with the whole batch."""

import pytest
import torch
from torch import nn

from modeling.layers import BatchNorm
from tests.helpers.processes import run_together
from utils import distributed
from utils.errors import UserError


def make_rows():
    """Return a batch of 6 and weights for a loss on it, in float64 (the batch normalisation computes in float32)."""
    torch.manual_seed(0)
    return torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)


def pairwise_loss(rows, weights):
    """Compare every row with every other, as a triplet loss does; the result is not a sum over parts."""
    return (weights * (rows @ rows.T).exp()).sum()


def normalize(rows):
    """Pass rows through a batch normalisation and back; return its output and the module, which holds the gradients."""
    norm = BatchNorm(5)
    nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    output = norm(rows)
    factor = torch.arange(30.0).view(6, 5)
    (distributed.gather_rows(output) * factor).sum().backward()
    return output.detach(), norm


def work():
    rows, weights = make_rows()
    rank, results = distributed.rank(), {}

    own = distributed.own_rows(rows).clone().requires_grad_()
    loss = pairwise_loss(distributed.gather_rows(own), weights)
    loss.backward()
    results["loss"], results["gradient"] = loss.detach(), own.grad

    features = distributed.own_rows(rows).float().requires_grad_()
    results["normed"], norm = normalize(features)
    results["normed gradient"], results["norm weight gradient"] = features.grad, norm.weight.grad
    results["norm"] = norm.state_dict()
    norm.eval()  # must not wait for the other process, which may not take part
    results["evaluated"] = norm(features).detach() if rank == 0 else None

    index = torch.tensor([[4, 0, 1, 3], [3, 2]][rank])  # The counts differ, and both processes have 3.
    results["samples"] = distributed.gather_samples(index[:, None] * torch.tensor([1, 10]), index, 5)

    results["agreed"] = distributed.all_reduce_max([3, 7][rank])
    with distributed.main_first():
        results["order"] = torch.tensor(distributed._store.add("test", 1))
    results["who"] = [rank, distributed.world_size(), distributed.is_main(), distributed.local_rank()]
    results["first"] = distributed.first_to_fail()
    return results


def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    both = run_together(work, tmp_path)
    rows, weights = make_rows()
    whole = rows.clone().requires_grad_()
    loss = pairwise_loss(whole, weights)
    loss.backward()
    features = rows.float().requires_grad_()
    normed, norm = normalize(features)
    for rank, results in enumerate(both):
        part = slice(3 * rank, 3 * rank + 3)
        torch.testing.assert_close(results["loss"], loss.detach(), rtol=0, atol=0)
        # Both hold the loss of the whole batch, so that a row's gradient is twice that of the whole batch.
        torch.testing.assert_close(results["gradient"], 2 * whole.grad[part], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(results["normed"], normed[part], rtol=0, atol=0)
        torch.testing.assert_close(results["normed gradient"], 2 * features.grad[part], rtol=1e-5, atol=1e-5)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(results["norm"][name], value, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(results["samples"], torch.arange(5)[:, None] * torch.tensor([1, 10]))
        assert results["agreed"] == 7
        assert results["order"] == rank + 1, "the main process passes first"
        assert results["who"] == [rank, 2, rank == 0, rank]
    mean = (both[0]["norm weight gradient"] + both[1]["norm weight gradient"]) / 2
    torch.testing.assert_close(mean, norm.weight.grad, rtol=1e-5, atol=1e-5)
    assert sorted(results["first"] for results in both) == [False, True]


def test_one_process_needs_no_others(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    distributed.init()
    rows = torch.randn(3, 2, requires_grad=True)
    assert not distributed.is_active() and distributed.is_main() and distributed.world_size() == 1
    assert distributed.gather_rows(rows) is rows and torch.equal(distributed.own_rows(rows), rows)
    assert distributed.all_reduce_max(5) == 5 and distributed.first_to_fail()
    index = torch.tensor([2, 0, 1])
    assert torch.equal(distributed.gather_samples(rows.detach(), index, 3)[index], rows.detach())


def test_half_an_environment_is_refused(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"RANK and WORLD_SIZE are set.*torchrun"):
        distributed.init()
