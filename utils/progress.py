"""Progress bars."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from utils import distributed


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """A tqdm bar that fits the terminal and goes away when done; only the main process shows it."""
    if not distributed.is_main():
        options["disable"] = True
    return tqdm(*args, leave=False, dynamic_ncols=True, **options)
