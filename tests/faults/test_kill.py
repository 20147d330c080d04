"""After SIGKILL, at random moments or in the middle of saving, a resumed run ends as if nothing had happened."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import records

EPOCHS = 40
RANDOM_KILLS = 12

# These are the points in a save at which to die: (name of the file that is being written, moment).
IN_SAVING = [
    ("last.pth", "half written"),
    ("last.pth", "before fsync"),
    ("last.pth", "between the renames"),
    ("last.pth", "after the renames"),
    ("best.pth", "half written"),
    ("best.pth", "after the renames"),
    ("metrics.jsonl", "half written"),
    ("metrics.jsonl", "after the renames"),
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def let_the_score_rise() -> None:
    """In the child, judge a model by the size of its classifiers, which grow from 0.001, so that best.pth is written
    often; the tiny set is solved before the first epoch."""
    from engine.evaluate import Evaluator

    score = Evaluator.__call__

    def rising(evaluator, model):
        size = sum(head.classifier.weight.detach().double().norm() for head in model.heads.values())
        return score(evaluator, model) | {"score": size.item()}

    Evaluator.__call__ = rising


def die_in_saving(name: str, moment: str) -> None:
    """In the child, arrange for it to be killed at the second writing of `name`."""
    from engine import run_folder

    let_the_score_rise()
    writes = []
    save, replace, fsync, append = torch.save, os.replace, os.fsync, run_folder.RunFolder.append

    def due(path) -> bool:
        return name in Path(path).name

    def half_save(content, file):
        if due(file.name):
            writes.append(1)
        if len(writes) == 2 and moment == "half written":
            save(content, file)
            file.flush()
            os.truncate(file.fileno(), file.tell() // 2)
            die()
        save(content, file)

    def die_at_fsync(descriptor):
        if len(writes) == 2 and moment == "before fsync":
            die()
        fsync(descriptor)

    def die_at_rename(source, target):
        if len(writes) == 2 and moment == "between the renames" and due(source) and Path(target).name == name:
            die()
        replace(source, target)
        if len(writes) == 2 and moment == "after the renames" and Path(target).name == name:
            die()

    def die_at_append(folder, record):
        if name != "metrics.jsonl":
            return append(folder, record)
        writes.append(1)
        if len(writes) == 2 and moment == "half written":
            with open(folder.path / name, "a") as file:
                file.write(json.dumps(record)[:40])
            die()
        append(folder, record)
        if len(writes) == 2:
            die()

    torch.save, os.fsync, os.replace = half_save, die_at_fsync, die_at_rename
    run_folder.RunFolder.append = die_at_append


def assert_equal_runs(first, second):
    """Check that two runs have the same weights, optimiser states and metrics, and left nothing half written."""
    assert records(first) == records(second)
    for name in ("last.pth", "previous.pth", "best.pth"):
        one, two = (torch.load(folder / name, weights_only=True) for folder in (first, second))
        assert one["epoch"] == two["epoch"] and one["model"].keys() == two["model"].keys()
        assert all(torch.equal(one["model"][key], two["model"][key]) for key in one["model"])
        if "optimizer" in one:
            for state, other in zip(*(c["optimizer"]["state"].values() for c in (one, two)), strict=True):
                assert all(torch.equal(state[key], other[key]) for key in state)
    results = [json.loads((folder / "results.json").read_text())["rows"] for folder in (first, second)]
    assert results[0] == results[1]
    assert not list(second.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_twenty_times_it_ends_in_the_same_weights(launch, tiny, tmp_path):
    """The same run is killed twelve times from outside at a random moment, and eight times at a moment of saving."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    argv = ["--config_file", tiny, "--resume", "auto", "SOLVER.MAX_EPOCHS", EPOCHS]
    launch("train_net", *argv, "OUTPUT_DIR", whole, before=(let_the_score_rise,)).ends_well()
    times = [float(x) for x in _epoch_ends(whole)]
    pace = (times[-1] - times[0]) / EPOCHS

    rng = random.Random(0)
    plan = [*IN_SAVING, *[None] * RANDOM_KILLS]
    rng.shuffle(plan)
    for point in plan:
        if point is not None:
            run = launch("train_net", *argv, before=(die_in_saving, *point))
            assert run.wait() == -signal.SIGKILL, run.text()
            continue
        run = launch("train_net", *argv, before=(let_the_score_rise,))
        _wait_for_a_line(run)
        time.sleep(rng.uniform(0, 2.5 * pace))
        run.kill()
    launch("train_net", *argv, before=(let_the_score_rise,)).ends_well()
    assert_equal_runs(whole, out)


def _epoch_ends(folder):
    """Yield the second of the day at the end of each epoch, from log.txt."""
    for line in (folder / "log.txt").read_text().splitlines():
        if " epoch " in line:
            hours, minutes, seconds = line.split()[1].replace(",", ".").split(":")
            yield 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _wait_for_a_line(run):
    """Wait until the run has printed what it trains on, just before the first step."""
    until = time.monotonic() + 60
    while "identities" not in run.text():
        assert time.monotonic() < until and run.process.is_alive(), run.text()
        time.sleep(0.005)
