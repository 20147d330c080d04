"""Checks that a file of tensors is intact and finite."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def verify_archive(path: Path) -> None:
    """Verify the checksums of a zip archive, the format of torch.save; torch.load does not verify them.

    Raises:
        zipfile.BadZipFile: a checksum differs. A file that is not a zip archive has none and passes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} in it is damaged: its checksum differs")


def find_non_finite(content: Any) -> str | None:
    """Return the dotted name of the first tensor in nested dicts and lists that holds nan or inf; None without one."""
    for name, tensor in _tensors(content):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dicts and lists with their dotted names."""
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{prefix}{key}.")
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        for i, value in enumerate(content):
            yield from _tensors(value, f"{prefix}{i}.")
