"""Runs of two processes on the CPU against runs of one: they give the same losses, weights, metrics and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

import train_net
from tests.helpers.processes import ROOT, start_together
from tests.helpers.runs import interrupt_in_epoch_2, records, run
from tests.helpers.trees import write_tiny

pytestmark = pytest.mark.slow

# Without what processes draw apart (drop path, Gumbel noise). With SGD, since Adam makes whole steps of gradients that
# are nothing but rounding (those of the keys' biases). The last batch of the evaluation is a rest, and theirs differ.
EXACT = [
    "MODEL.DROP_PATH", 0, "MODEL.SDTPS_USE_GUMBEL", False, "SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01,
    "SOLVER.BACKBONE_LR", 0.01, "SOLVER.MAX_EPOCHS", 2, "TEST.IMS_PER_BATCH", 3,
]  # fmt: skip
# Float32: a batch of half the size is summed in another order, and some ten steps carry that on. Weights are of the
# order of 0.1 and move by 0.01 and more.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}

FAULTS = """
import os, signal, sys
import torch, train_net
from utils import distributed
from utils.errors import UserError
from utils.script import run_script

step = train_net.Trainer.train_step

def train_step(self, batch):
    if distributed.rank() == 1 and (self.state.epoch, self.state.step) == (1, 1):
        {fault}
    return step(self, batch)

train_net.Trainer.train_step = train_step
sys.exit(run_script(train_net.main))
"""


def assert_same_run(folder, expected):
    """Losses and weights up to rounding."""
    theirs, ours = records(expected), records(folder)
    assert [line["epoch"] for line in ours] == [line["epoch"] for line in theirs]
    for our_line, their_line in zip(ours, theirs, strict=True):
        assert our_line.get("losses", {}) == pytest.approx(their_line.get("losses", {}), rel=1e-4, abs=1e-5)
    ours, theirs = (torch.load(f / "last.pth", weights_only=True) for f in (folder, expected))
    assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
    assert ours["model"].keys() == theirs["model"].keys()
    for name, value in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], value, **ROUNDING, msg=lambda m, n=name: f"{n}: {m}")


def train(config, *argv):
    """In this process, alone, and with one thread as theirs have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(train_net, "--config_file", config, *argv)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rgbnt201):
    """The folder of the run that one process made without a break."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(write_tiny(folder, rgbnt201), *EXACT) == 0
    return folder / "out"


def torchrun(script, config, *argv):
    """As the README says, by two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    command += ["--config_file", config, *map(str, argv)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def fault(tmp_path, code, config, *argv):
    """Train by two processes of which rank 1 does `code` at epoch 2, step 2; their exit codes and outputs."""
    program = ["-c", FAULTS.format(fault=code), "--config_file", str(config), *map(str, argv)]
    processes = start_together(program, tmp_path)
    ends = {}
    until = time.monotonic() + 90
    while len(ends) < len(processes):
        assert time.monotonic() < until, [(tmp_path / f"{rank}.log").read_text() for rank in range(2)]
        for rank, process in enumerate(processes):
            if rank not in ends and process.poll() is not None:
                ends[rank] = time.monotonic()
        time.sleep(0.02)
    assert max(ends.values()) - min(ends.values()) < 5, "one ended long after the other"
    logs = [(tmp_path / f"{rank}.log").read_text() for rank in range(2)]
    assert not any("Traceback" in log for log in logs), logs
    return [process.returncode for process in processes], logs


def test_two_processes_train_and_evaluate_as_one(tiny, tmp_path, whole):
    two = tmp_path / "out"
    done = torchrun("train_net.py", tiny, *EXACT, "DATALOADER.CACHE_DIR", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert_same_run(two, whole)
    assert [line["eval"] for line in records(two)] == [line["eval"] for line in records(whole)]
    assert printed.count("epoch 2/2 |") == printed.count("untrained (epoch 0)") == 1, "one process talks"
    assert len(re.findall(r"Decoded \d+ samples", printed)) == 2, "the training and the test images, once each"
    assert {path.name for path in whole.iterdir()} == {path.name for path in two.iterdir()}

    # The evaluation of the same weights.
    assert torchrun("test_net.py", tiny, *EXACT, "TEST.WEIGHT", whole / "last.pth").returncode == 0
    tested = json.loads((two / "test_results.json").read_text())["rows"][0]
    assert tested["eval"] == records(whole)[-1]["eval"]


def test_a_signal_to_one_stops_both_and_one_process_goes_on(tiny, tmp_path, whole):
    codes, _ = fault(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)", tiny, *EXACT)
    assert codes == [128 + signal.SIGTERM] * 2
    saved = torch.load(tmp_path / "out" / "last.pth", weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 2)
    assert train(tiny, "--resume", "auto", *EXACT) == 0
    assert_same_run(tmp_path / "out", whole)


def test_two_processes_go_on_from_one(tiny, tmp_path, whole):
    with interrupt_in_epoch_2():
        assert train(tiny, *EXACT) == 130
    program = ["train_net.py", "--config_file", str(tiny), "--resume", "auto", *map(str, EXACT)]
    assert [process.wait(90) for process in start_together(program, tmp_path)] == [0, 0]
    assert_same_run(tmp_path / "out", whole)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise UserError('The GPU of rank 1 is broken.')", "error: The GPU of rank 1 is broken."),
        ("os.kill(os.getpid(), signal.SIGKILL)", "error: Another process of this run exited without an error message"),
        (
            "type(self.augment).with_mask = lambda _, images, *__: (torch.full(images.shape, torch.nan), None)",
            "error: Non-finite loss at epoch 2, step 2",
        ),
    ],
    ids=["user error", "killed", "nan in one share"],
)
def test_one_that_fails_ends_both_with_its_error(tiny, tmp_path, code, message):
    codes, logs = fault(tmp_path, code, tiny)
    assert all(codes) and sum(log.count("error: ") for log in logs) == 1, logs
    assert sum(message in log for log in logs) == 1, logs
    assert torch.load(tmp_path / "out" / "last.pth", weights_only=True)["epoch"] == 1


def test_a_mistake_of_all_is_said_once(tiny):
    done = torchrun("train_net.py", tiny, "SOLVER.IMS_PER_BATCH", 6)
    assert done.returncode != 0
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "3 identities a batch, which 2 processes cannot share" in message and "multiple of 4" in message
