"""The folder of a run: the files that a run writes, none of which is ever lost."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint import BEST, LAST, PREVIOUS
from utils import distributed
from utils.errors import UserError
from utils.files import atomic_write

logger = logging.getLogger(__name__)

METRICS, RESULTS, CONFIG, LOG = "metrics.jsonl", "results.json", "config.yaml", "log.txt"
TEST_RESULTS = "test_results.json"
RUN_FILES = (METRICS, RESULTS, CONFIG, LOG, LAST, PREVIOUS, BEST, "tensorboard")


class RunFolder:
    """OUTPUT_DIR, created if it does not exist. Of several processes, only the main one writes into it.

    Raises:
        UserError: it cannot be created or written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        probe = self.path / f".write-test.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"OUTPUT_DIR {self.path} cannot be written to: {error.strerror}. Set OUTPUT_DIR elsewhere."
            ) from error
        self._writer = None

    def holds(self, source: str) -> bool:
        """Tell whether the checkpoint that --resume names ('auto' or a path) belongs to the run in this folder."""
        return source == "auto" or Path(source).resolve().parent == self.path.resolve()

    def set_aside(self) -> Path | None:
        """Move the files of an earlier run into a sub-folder, so that a new run overwrites nothing.

        Returns:
            The sub-folder; None if there was no earlier run.
        """
        if not distributed.is_main():
            return None
        found = [self.path / name for name in RUN_FILES if (self.path / name).exists()]
        if not any(path.name in (METRICS, LAST, BEST) for path in found):
            return None
        number = 1
        while (aside := self.path / f"earlier-{number}").exists():
            number += 1
        aside.mkdir()
        for path in found:
            os.replace(path, aside / path.name)
        return aside

    def write_text(self, name: str, text: str) -> None:
        """Write a small file whole.

        Raises:
            UserError: the disk is full; the file that stood there is then untouched.
        """
        if not distributed.is_main():
            return
        try:
            with atomic_write(self.path / name) as file:
                file.write(text)
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def write_results(self, results: Mapping[str, Any], name: str = RESULTS) -> None:
        """Write results.json, or another JSON file called `name`."""
        self.write_text(name, json.dumps(results, indent=2) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """Read the records in metrics.jsonl."""
        return read_records(self.path / METRICS)

    def keep_records(self, until_epoch: int) -> None:
        """Drop the records of epochs after `until_epoch`, which a resumed run writes again."""
        kept = [json.dumps(record) + "\n" for record in self.records() if record["epoch"] <= until_epoch]
        self.write_text(METRICS, "".join(kept))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record to metrics.jsonl, and its numbers to TensorBoard if that is installed.

        Raises:
            UserError: the disk is full.
        """
        if not distributed.is_main():
            return
        try:
            with open(self.path / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise _not_written(self.path / METRICS, error) from error
        if self._writer is None and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.path / "tensorboard")
        if self._writer is not None:
            for name, value in _numbers(record):
                self._writer.add_scalar(name, value, record["epoch"], walltime=time.time())
            self._writer.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Read the records in the metrics.jsonl at `path`, one per line; there are none if the file does not exist.

    A line that was cut off or is not a record is skipped with a warning.
    """
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict) and "epoch" in record:
            yield record
        else:
            logger.info("warning: %s has a broken line, which is skipped.", path)


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Could not write {path}: {error.strerror or error}. Free space or set OUTPUT_DIR to another disk, then "
        "continue with --resume auto; what was saved before is intact."
    )


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return the numbers in nested dicts with names such as 'losses/total', without the epoch."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and key != "epoch":
            yield f"{prefix}{key}", value
