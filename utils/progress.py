"""Progress bars and the time that is left."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from tqdm import tqdm

from utils import distributed


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """Return a tqdm bar that fits the terminal and disappears when it is done; only the main process shows it."""
    if not distributed.is_main():
        options["disable"] = True
    return tqdm(*args, leave=False, dynamic_ncols=True, **options)


class Pace:
    """Estimates when a run will end from its pace since the start, at which `epochs_done` were done already."""

    def __init__(self, epochs_done: float, max_epochs: int) -> None:
        self.start = time.perf_counter()
        self.epochs_done = epochs_done
        self.max_epochs = max_epochs

    def time_left(self, epoch: int) -> str:
        """Estimate the time that the epochs after `epoch` will take, as h:mm:ss."""
        seconds_per_epoch = (time.perf_counter() - self.start) / (epoch - self.epochs_done)
        return str(timedelta(seconds=round(seconds_per_epoch * (self.max_epochs - epoch))))
