"""Read the folder of a run: how far the run is, its metrics, and whether it equals another run bit by bit."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from configs.loading import leaves
from engine.checkpoint import LAST, load_checkpoint
from engine.run_folder import CONFIG, METRICS, RESULTS, read_records
from tools.ablate.plan import Run, differences

STATE = "run.json"
"""The sweep notes the starts of a run and the end of the last one in this file of the run's folder."""
FINISHED, FAILED, INCOMPLETE, MISSING, OTHER = "finished", "failed", "incomplete", "missing", "other configuration"
STOPPED = (130, 143, -2, -15)
"""A run that was asked to stop ends with one of these exit codes."""
EMBEDDING = "embedding"
"""Stands for the descriptor that is the model's embedding, whichever that is in a variant."""


@dataclass(frozen=True)
class RunRecord:
    """A RunRecord is the state of a run as its folder shows it."""

    run: Run
    status: str
    message: str = ""
    """Tells people why the run is not finished."""
    results: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of results.json by their first word: 'untrained', 'last' and 'best'."""
        return {row["name"].split()[0]: row for row in self.results.get("rows", ())}

    def metric(self, row: str, descriptor: str, metric: str) -> float | None:
        """Return a metric in percent, or None if the run does not have it.

        Args:
            row: 'untrained', 'last' or 'best'.
            descriptor: the name of a descriptor, or EMBEDDING.
            metric: 'mAP', 'R1' and so on.
        """
        name = self.results.get("headline") if descriptor == EMBEDDING else descriptor
        return self.rows.get(row, {}).get("eval", {}).get(name, {}).get(metric)


def read_run(run: Run) -> RunRecord:
    """Read the present state of a run."""
    epochs, state = list(read_records(run.folder / METRICS)), read_state(run.folder)
    if changed := config_differences(run):
        what = ", ".join(f"{key} {was} instead of {asked}" for key, (was, asked) in changed.items())
        return RunRecord(run, OTHER, f"the folder holds a run with {what}", state=state)
    if is_finished(run):
        return RunRecord(run, FINISHED, "", _read_json(run.folder / RESULTS), epochs, state)
    at = f"epoch {epochs_done(run.folder)} of {run.max_epochs}"
    if state.get("exit_code") not in (None, 0, *STOPPED):
        return RunRecord(run, FAILED, f"{state['message']} ({at})", epochs=epochs, state=state)
    if epochs or state:
        return RunRecord(run, INCOMPLETE, f"at {at}", epochs=epochs, state=state)
    return RunRecord(run, MISSING, "not started")


def is_finished(run: Run) -> bool:
    """Tell whether the folder holds the results of exactly the configuration that is asked for."""
    return (run.folder / RESULTS).exists() and config_differences(run) == {}


def config_differences(run: Run) -> dict[str, tuple[Any, Any]] | None:
    """Return the keys in which the run in the folder differs from the one asked for, or None if there is no run."""
    try:
        held = leaves(yaml.safe_load((run.folder / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    changed = differences(held, run.config)
    if held.get("SOLVER.SEED") != run.seed:
        changed["SOLVER.SEED"] = (held.get("SOLVER.SEED"), run.seed)
    return changed


def epochs_done(folder: Path) -> int:
    """Return the number of trained epochs."""
    try:
        return _last_epoch(folder / METRICS, (folder / METRICS).stat().st_mtime_ns)
    except FileNotFoundError:
        return 0


@functools.lru_cache(maxsize=1024)
def _last_epoch(path: Path, _modified: int) -> int:
    """Read a file again only after it was modified, because the progress bar asks twice a second."""
    return max((record["epoch"] for record in read_records(path)), default=0)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what the sweep noted about the run; the dict is empty before the first start."""
    return _read_json(folder / STATE)


def identical(first: RunRecord, second: RunRecord) -> bool:
    """Tell whether two finished runs have the same records, except times, and the same weights bit by bit.

    If last.pth was deleted to save space, the equal losses of every epoch have to suffice.
    """
    if [_without_times(line) for line in first.epochs] != [_without_times(line) for line in second.epochs]:
        return False
    paths = [record.run.folder / LAST for record in (first, second)]
    if not all(path.exists() for path in paths):
        return True
    ours, theirs = (load_checkpoint(path)["model"] for path in paths)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.endswith("_s")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
