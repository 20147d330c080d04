"""Several processes that train one model, as `torchrun` starts them. With one process every function still holds.

What is on the CPU travels through gloo and what is on a card through nccl, so agreeing on a number never waits for the
device. A process that ends closes its connections: the others then fail at their next agreement instead of waiting.

The training step and the evaluation that share their batches by these are in engine/parallel.py and engine/evaluate.py.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from utils.errors import UserError

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another that still lives; decoding a data set is the longest that one does alone."""

_store: dist.Store | None = None


def init() -> None:
    """Join the other processes, if RANK and WORLD_SIZE say that there are any (torchrun sets them).

    Raises:
        UserError: they do, and nothing says where the others are.
    """
    global _store
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1 or is_active():
        return
    try:
        _store, rank_, world_size_ = next(dist.rendezvous("env://", timeout=TIMEOUT))
    except ValueError as error:
        raise UserError(
            f"RANK and WORLD_SIZE are set in the environment, but {error}. Start several processes by torchrun "
            "--nproc_per_node=N train_net.py ..., or unset the two."
        ) from error
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank_, world_size=world_size_, timeout=TIMEOUT)


def is_active() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_active() else 1


def is_main() -> bool:
    """Whether this is the process that writes files, log and progress bars."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process on its machine: which card is its own."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_active() else 0


def local_world_size() -> int:
    """Processes on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_active() else 1


def all_reduce_max(value: int) -> int:
    """The largest of the processes' values, in each of them."""
    if not is_active():
        return value
    values = torch.tensor(value, dtype=torch.int64)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def barrier() -> None:
    """Wait until every process is here."""
    all_reduce_max(0)


@contextmanager
def main_first() -> Iterator[None]:
    """Context that the main process passes first: what it makes in there, the others find made.

    Where it fails it does not let them in, and they end with it.
    """
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


class _GatherRows(torch.autograd.Function):
    """All processes' rows; the gradient of a row is the sum of what it is given in every process."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty((world_size() * len(rows), *rows.shape[1:]))
        dist.all_gather(list(gathered.chunk(world_size())), rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return own_rows(gradient)


@torch.compiler.disable
def gather_rows(rows: Tensor) -> Tensor:
    """The rows (R, ...) of every process, equally many in each, by rank (world_size * R, ...); with gradient."""
    return _GatherRows.apply(rows) if is_active() else rows


def own_rows(gathered: Tensor) -> Tensor:
    """This process's part of what `gather_rows` gives."""
    share = len(gathered) // world_size()
    return gathered[rank() * share : (rank() + 1) * share]


def gather_samples(rows: Tensor, index: Tensor, total: int) -> Tensor:
    """What the processes know of samples 0 to `total` - 1, in their order.

    Args:
        rows: (R, ...), R >= 1 and different from process to process.
        index: (R,) int64, the samples they are of; a sample may occur more than once.
        total: number of samples, each of which some process knows.
    """
    padding = all_reduce_max(len(rows)) - len(rows)
    index = F.pad(index, (0, padding), value=total)
    rows = torch.cat([rows, rows[:1].expand(padding, *rows.shape[1:])])
    samples = rows.new_empty((total + 1, *rows.shape[1:]))
    samples[gather_rows(index)] = gather_rows(rows)
    return samples[:total]


def is_lost_connection(error: Exception) -> bool:
    """Whether `error` is gloo's or nccl's way to say that another process is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def first_to_fail() -> bool:
    """Whether no other process has failed before this one, whose error is then the one to be shown.

    What follows in the others is a copy of it, or the loss of the connection to this process. That is known as long as
    somebody holds the store: torchrun itself does, without it the main process.
    """
    if _store is None:
        return True
    key = f"error/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    try:
        return _store.add(key, 1) == 1
    except RuntimeError:
        return True


def shutdown() -> None:
    """Leave the others at the end of a run that went well."""
    global _store
    if is_active():
        dist.destroy_process_group()
        _store = None


def abandon(exit_code: int) -> int:
    """Leave the others after an error: at once where there are any, since tearing nccl down could wait for them."""
    if is_active():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code
