"""Reading run folders: how far a run is, what it found, and whether two runs are the same bit by bit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.loading import leaves
from engine.run_folder import CONFIG, METRICS, RESULTS
from tools.ablate.plan import Run, differences

STATE = "run.json"
"""What the sweep itself notes in a run folder: starts, and how the last one ended."""
FINISHED, FAILED, INCOMPLETE, MISSING, OTHER = "finished", "failed", "incomplete", "missing", "other configuration"
STOPPED = (130, 143, -2, -15)
"""Exit codes of a run that was asked to stop: it has saved, or had not yet begun."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder shows it."""

    run: Run
    status: str
    message: str = ""
    """Why it is not finished, for people."""
    results: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    def figure(self, row: str, feature: str, metric: str) -> float | None:
        """A figure of the result table in percent.

        Args:
            row: 'untrained', 'last' or 'best'.
            feature: a pattern, or 'headline' for the one that the run goes by.
        """
        pattern = self.results["headline"] if feature == "headline" else feature
        rows = {entry["name"].split()[0]: entry["eval"] for entry in self.results["rows"]}
        return rows.get(row, {}).get(pattern, {}).get(metric)


def read_run(run: Run) -> RunRecord:
    """The run as its folder shows it now."""
    epochs, state = read_epochs(run.folder), read_state(run.folder)
    changed = config_differences(run)
    if changed:
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
    """Whether the folder holds the results of the very configuration that is asked for."""
    return (run.folder / RESULTS).exists() and config_differences(run) == {}


def config_differences(run: Run) -> dict[str, tuple[Any, Any]] | None:
    """Keys in which the run in the folder differs from the one asked for; None when there is no run."""
    try:
        held = leaves(yaml.safe_load((run.folder / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    changed = differences(held, run.config)
    if held.get("SOLVER.SEED") != run.seed:
        changed["SOLVER.SEED"] = (held.get("SOLVER.SEED"), run.seed)
    return changed


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that is being written is left out."""
    lines = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def epochs_done(folder: Path) -> int:
    """Epochs that are trained."""
    return max((line["epoch"] for line in read_epochs(folder)), default=0)


def read_state(folder: Path) -> dict[str, Any]:
    """What the sweep noted on the run; empty before its first start."""
    return _read_json(folder / STATE)


def identical(first: RunRecord, second: RunRecord) -> bool:
    """Whether two finished runs have the same losses, figures and weights bit by bit, times aside."""
    if [_without_times(line) for line in first.epochs] != [_without_times(line) for line in second.epochs]:
        return False
    return _same_weights(first.run.folder, second.run.folder)


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.endswith("_s")}


def _same_weights(first: Path, second: Path) -> bool:
    """Compare last.pth; where one was deleted to save space, the equal losses of every epoch have to do."""
    import torch

    from engine.checkpoint import LAST, load_checkpoint

    if not all((folder / LAST).exists() for folder in (first, second)):
        return True
    ours, theirs = (load_checkpoint(folder / LAST)["model"] for folder in (first, second))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
