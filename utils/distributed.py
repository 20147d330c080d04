"""Several processes that train one model, as `torchrun` starts them. Without torchrun every function does nothing.

Tensors on the CPU travel through gloo and tensors on a GPU through nccl, so agreeing on a number never waits for the
device. A process that ends closes its connections; the others then fail at their next collective call and do not wait.

The training step that uses these functions is in engine/parallel.py, the evaluation in engine/evaluate.py.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from utils.errors import UserError

# How long a process waits for another one; decoding a data set is what one process does alone for the longest time.
TIMEOUT = timedelta(minutes=30)
# How long the main process stays after an error. Without torchrun it holds the store, in which the others look up
# whether they are the first to fail.
GRACE_S = 1.0

_store: dist.Store | None = None


def init() -> None:
    """Join the other processes, if RANK and WORLD_SIZE, which torchrun sets, say that there are any.

    Raises:
        UserError: the two are set, but the address of the other processes is not.
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
    """Tell whether there are several processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_active() else 1


def is_main() -> bool:
    """Tell whether this is the process that writes files, log and progress bars."""
    return rank() == 0


def local_rank() -> int:
    """Return the number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_active() else 0


def local_world_size() -> int:
    """Return the number of processes on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_active() else 1


def all_reduce_max(value: int) -> int:
    """All-reduce (max) of an integer."""
    if not is_active():
        return value
    values = torch.tensor(value, dtype=torch.int64)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def barrier() -> None:
    """Wait until every process has called this."""
    all_reduce_max(0)


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process run the context first, so that the others find what it has made.

    If the main process fails in it, the others do not enter and end with an error as well.
    """
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


class _GatherRows(torch.autograd.Function):
    """Gathers the rows of all processes; the gradient of a row is the sum of its gradients in all processes."""

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
    """Gather rows (R, ...), as many in every process, to (world_size * R, ...), sorted by rank; differentiable."""
    return _GatherRows.apply(rows) if is_active() else rows


def own_rows(gathered: Tensor) -> Tensor:
    """Return this process's part of the rows that `gather_rows` returned."""
    share = len(gathered) // world_size()
    return gathered[rank() * share : (rank() + 1) * share]


def gather_samples(rows: Tensor, index: Tensor, total: int) -> Tensor:
    """Gather one row for each of the samples 0 to `total` - 1: (total, ...), in the order of the samples.

    Args:
        rows: (R, ...), R >= 1; R may differ between processes.
        index: (R,) int64, the sample of each row; a sample may occur more than once.
        total: number of samples; at least one process holds a row of each.
    """
    padding = all_reduce_max(len(rows)) - len(rows)
    index = F.pad(index, (0, padding), value=total)
    rows = torch.cat([rows, rows[:1].expand(padding, *rows.shape[1:])])
    samples = rows.new_empty((total + 1, *rows.shape[1:]))
    samples[gather_rows(index)] = gather_rows(rows)
    return samples[:total]


def is_lost_connection(error: Exception) -> bool:
    """Tell whether `error` is how gloo or nccl reports that another process has ended."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def first_to_fail() -> bool:
    """Tell whether this process is the first to fail, so that its error is the one to show.

    The errors of the others are copies of it, or report the lost connection to this process. The store that counts the
    failures is held by torchrun, or without torchrun by the main process; without a store every process is the first.
    """
    if _store is None:
        return True
    key = f"error/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    try:
        return _store.add(key, 1) == 1
    except RuntimeError:
        return True


def shutdown() -> None:
    """Leave the other processes at the end of a successful run."""
    global _store
    if is_active():
        dist.destroy_process_group()
        _store = None


def abandon(exit_code: int) -> int:
    """Leave the other processes after an error without tearing nccl down, which could wait for them."""
    if is_active():
        if is_main():
            time.sleep(GRACE_S)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code
