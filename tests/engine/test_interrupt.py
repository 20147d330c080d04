"""SIGINT and SIGTERM: a run saves, exits with the signal's code, and continues bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_net
from engine.interrupt import Interrupted, StopRequest
from tests.helpers.runs import equal, interrupt_in_epoch_2, records, run, weights

ROOT = Path(__file__).parents[2]


def test_the_first_signal_is_kept_and_the_second_interrupts():
    former = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.poll() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.poll() == stop.poll() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is former


def test_the_exit_code_is_the_shells():
    error = Interrupted(signal.SIGINT)
    assert (str(error), error.exit_code) == ("stopped by SIGINT", 130)


def start(config, *argv):
    """The training script in a process of its own, its output in a file beside the run."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, ROOT / "train_net.py", "--config_file", config, *map(str, argv)]
    log = open(config.parent / "process.log", "w")  # noqa: SIM115 - the process owns it
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, process, seconds=60):
    until = time.time() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.time() < until
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_a_signal_to_the_process_group_saves_and_exits_cleanly(tiny, tmp_path, number, workers):
    longer = ["SOLVER.MAX_EPOCHS", 30]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(train_net, "--config_file", tiny, *longer, "OUTPUT_DIR", whole) == 0
    process = start(tiny, *longer, "DATALOADER.NUM_WORKERS", workers)
    wait_for(lambda: (out / "metrics.jsonl").exists() and len((out / "metrics.jsonl").read_text()) > 4000, process)
    os.killpg(process.pid, number)
    assert process.wait(30) == 128 + number
    assert "Traceback" not in (tmp_path / "process.log").read_text()
    assert run(train_net, "--config_file", tiny, "--resume", "auto", *longer) == 0
    assert records(out) == records(whole) and equal(weights(out), weights(whole))


def test_interruption_in_mid_epoch_continues_bit_by_bit(tiny, tmp_path):
    """As above, but at a known step: after the second of epoch 2."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(train_net, "--config_file", tiny, "OUTPUT_DIR", whole) == 0
    with interrupt_in_epoch_2():
        assert run(train_net, "--config_file", tiny) == 130
    saved = torch.load(out / "last.pth", weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 2)
    assert run(train_net, "--config_file", tiny, "--resume", "auto") == 0
    assert records(out) == records(whole) and equal(weights(out), weights(whole))
