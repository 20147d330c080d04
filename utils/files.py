"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(
    path: Path, mode: str = "w", *, unique: bool = False, keep_as: Path | None = None
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces `path` when the block ends without an error.

    A reader sees either the old file or the new one, and so does the next start after a crash, because the bytes are
    flushed to the disk before the rename. After an error the temporary file is removed and `path` is untouched.

    Args:
        path: the file to write.
        mode: 'w' for UTF-8 text, 'wb' for bytes.
        unique: give the temporary file a name of its own, for a target that several processes may write at once;
            otherwise what a killed run has left is written over.
        keep_as: move the file that stood at `path` here instead of replacing it.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    suffix = f".{os.getpid()}.{secrets.token_hex(4)}.tmp" if unique else ".tmp"
    temporary = path.with_name(f".{path.name}{suffix}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
