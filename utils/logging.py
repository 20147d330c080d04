"""Logging to the screen and to the run's log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from pathlib import Path

from utils import distributed


class _LogFile(logging.FileHandler):
    """A log file that skips the lines that a full disk refuses; files that a run needs raise where they are written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Report errors as logging does, except those of the disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def setup_logging(log_file: Path | None = None) -> None:
    """Send log lines of level INFO to stdout, and append them to `log_file` with the time.

    Python's warnings are logged, too. Of several processes only the main one logs.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # lines that a full disk has refused
            handler.close()
    if not distributed.is_main():
        root.addHandler(logging.NullHandler())
        warnings.showwarning = lambda *_args, **_kwargs: None
        return
    root.setLevel(logging.INFO)
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(screen)
    if log_file is not None:
        file = _LogFile(log_file, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        root.addHandler(file)
    warnings.showwarning = lambda message, *_args, **_kwargs: logging.getLogger("warnings").info("warning: %s", message)
