"""Whether a file of tensors is as it was written, and its numbers are numbers."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def verify_archive(path: Path) -> None:
    """Compare the check sums of a zip archive, which is what torch.save writes and torch.load does not look at.

    Raises:
        zipfile.BadZipFile: they differ. A file that is no zip archive has none and passes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} in it is damaged: its check sum differs")


def find_non_finite(content: Any) -> str | None:
    """The dotted name of the first tensor that holds nan or inf in nested dicts and lists; None when there is none."""
    for name, tensor in _tensors(content):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{prefix}{key}.")
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        for i, value in enumerate(content):
            yield from _tensors(value, f"{prefix}{i}.")
