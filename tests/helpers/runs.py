"""Run the entry scripts in this process, build a trainer without them, and read what a run wrote."""

import json
import os
import signal
import sys
from contextlib import contextmanager

import pytest
import torch

from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator, build_trainer
from engine.precision import resolve_device
from engine.run_folder import RunFolder
from engine.train import Trainer
from modeling import build_model
from utils.script import run_script
from utils.seeding import seed_all


def run(script, *argv):
    """Run an entry script (the module) with `argv` as its command line, and return its exit code."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, argv)])
        return run_script(script.main)


def fails(capsys, script, *argv):
    """Run `script`, which must end with a user's error, and return the one paragraph."""
    assert run(script, *argv) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


def make_trainer(config, *opts):
    """Build a trainer as train_net does, before its first epoch."""
    cfg = get_cfg(config, opts)
    data, device = build_data(cfg), resolve_device(cfg.MODEL.DEVICE)
    seed_all(cfg.SOLVER.SEED)
    model = build_model(cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras).to(device)
    evaluator = build_evaluator(cfg, data.test, model, device)
    return build_trainer(cfg, data, model, device, evaluator=evaluator, folder=RunFolder(cfg.OUTPUT_DIR))


@contextmanager
def interrupt_in_epoch_2():
    """Let Ctrl-C arrive during the second step of the second epoch of every training in this context."""
    step = Trainer.train_step

    def step_then_interrupt(self, batch):
        losses = step(self, batch)
        if (self.state.epoch, self.state.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "train_step", step_then_interrupt)
        yield


def records(folder):
    """Return the lines of metrics.jsonl without their times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_s"} for line in lines]


def weights(folder, name="last.pth"):
    """Return the model's state dict in a checkpoint of a run."""
    return torch.load(folder / name, weights_only=True)["model"]


def equal(first, second):
    """Return whether two state dicts are the same to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
