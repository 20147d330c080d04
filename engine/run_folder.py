"""The folder of a run: what is written into it, and that nothing in it is lost."""

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

logger = logging.getLogger(__name__)

METRICS, RESULTS, CONFIG, LOG = "metrics.jsonl", "results.json", "config.yaml", "log.txt"
RUN_FILES = (METRICS, RESULTS, CONFIG, LOG, LAST, PREVIOUS, BEST, "tensorboard")


class RunFolder:
    """OUTPUT_DIR, created if need be. Of several processes, only the main one writes into it.

    Raises:
        UserError: it cannot be made or written to.
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
        """Whether the checkpoint that --resume names ('auto' or a path) is of the run in this folder."""
        return source == "auto" or Path(source).resolve().parent == self.path.resolve()

    def set_aside(self) -> Path | None:
        """Move the files of an earlier run into a sub-folder, so that a fresh one overwrites nothing."""
        if not distributed.is_main():
            return None
        present = [self.path / name for name in RUN_FILES if (self.path / name).exists()]
        if not any(path.name in (METRICS, LAST, BEST) for path in present):
            return None
        number = 1
        while (aside := self.path / f"earlier-{number}").exists():
            number += 1
        aside.mkdir()
        for path in present:
            os.replace(path, aside / path.name)
        return aside

    def write_text(self, name: str, text: str) -> None:
        """Write a small file whole.

        Raises:
            UserError: the disk is full; the file that stood there is then untouched.
        """
        if not distributed.is_main():
            return
        temporary = self.path / f".{name}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _not_written(self.path / name, error) from error

    def write_results(self, results: Mapping[str, Any], name: str = RESULTS) -> None:
        """Write results.json, or another file of its kind."""
        self.write_text(name, json.dumps(results, indent=2) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; one that was cut off or is no record is left out."""
        return read_records(self.path / METRICS)

    def keep_records(self, until_epoch: int) -> None:
        """Drop the lines of epochs after `until_epoch`: a resumed run writes them again."""
        kept = [json.dumps(record) + "\n" for record in self.records() if record["epoch"] <= until_epoch]
        self.write_text(METRICS, "".join(kept))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl, and its numbers to TensorBoard where that is installed.

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


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Could not write {path}: {error.strerror or error}. Free space or set OUTPUT_DIR to another disk, then "
        "continue with --resume auto; what was saved before is intact."
    )


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the metrics.jsonl at `path`, none where there is no such file.

    A line that was cut off or is no record is left out.
    """
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict) and "epoch" in record:
            yield record
        else:
            logger.info("warning: %s has a broken line, which is left out.", path)


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and key != "epoch":
            yield f"{prefix}{key}", value
