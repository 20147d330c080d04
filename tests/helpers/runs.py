"""Running the entry scripts in this process, and reading what a run wrote."""

import json
import sys

import pytest
import torch

from utils.script import run_script


def run(script, *argv):
    """The exit code of an entry script (the module), with `argv` as its command line."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, argv)])
        return run_script(script.main)


def records(folder):
    """metrics.jsonl without its times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_s"} for line in lines]


def weights(folder, name="last.pth"):
    """The model's state dict in a checkpoint of a run."""
    return torch.load(folder / name, weights_only=True)["model"]


def equal(first, second):
    """Whether two state dicts are the same to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
