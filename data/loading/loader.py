"""Load whole batches, and end the worker processes with the script."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Iterable, Iterator

from torch.utils.data import DataLoader

from data.loading.dataset import StoreDataset
from data.sample import Batch
from utils.errors import UserError


class BatchLoader(DataLoader):
    """Load the batches that `batch_sampler` lists.

    Args:
        dataset: makes whole batches.
        batch_sampler: the samples of each batch, by their positions.
        num_workers: processes; 0 loads in this one.
        pin_memory: put the batches into pinned memory.

    Raises:
        UserError: a worker process died during the iteration.
    """

    def __init__(
        self, dataset: StoreDataset, batch_sampler: Iterable[list[int]], *, num_workers: int, pin_memory: bool
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=_as_is,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_signals,
            pin_memory=pin_memory,
        )
        if num_workers:
            atexit.register(_end_workers)

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: it died while sending
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
                raise
            raise UserError(
                f"A process of the loader has died ({' '.join(str(error).split()) or 'end of file'}). Most often the "
                "system has ended it for lack of memory: lower DATALOADER.NUM_WORKERS, then continue with --resume "
                "auto."
            ) from error


def _as_is(batch: Batch) -> Batch:
    """Collate nothing, because the data set makes whole batches."""
    return batch


def _ignore_signals(_worker: int) -> None:
    """Leave Ctrl-C and a scheduler's signal, which reach every process, to the trainer, which then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the workers of a loader that something still holds at exit.

    multiprocessing would send them SIGTERM, which they ignore, and wait for them forever.
    """
    if hasattr(signal, "SIGCHLD"):  # torch would report the end of a worker as an error
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
