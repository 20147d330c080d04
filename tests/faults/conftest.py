"""Run the scripts in processes that may be killed, limited and inspected.

A process that starts Python and imports torch takes seconds; one that is forked from a server which has done so (the
standard library's forkserver) starts in milliseconds and is as real: it has its own id, memory, signals and limits.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.trees import write_rgbnt201

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
PRELOAD = ["train_net", "test_net", "torch._dynamo", "torch.utils.tensorboard"]
"""Torch imports the last two at the first optimiser step and event file, if they are installed."""


def _run(script, argv, output, before):
    """In the child, run a script's `main` as its command line would, and send all it prints to `output`."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    sys.stdout, sys.stderr = open(1, "w", closefd=False, buffering=1), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    import torch

    from utils.script import run_script

    torch.set_num_threads(1)
    if before is not None:
        before[0](*before[1:])
    sys.argv = [script, *argv]
    sys.exit(run_script(__import__(script).main))


def _read(pipe, printed):
    while data := os.read(pipe.fileno(), 65536):
        printed.append(data)


@dataclass
class Run:
    """A run is a script that runs in a process of its own."""

    process: multiprocessing.Process
    reader: threading.Thread
    printed: list[bytes]

    def kill(self) -> None:
        """Send SIGKILL, and check that this is what ended the run."""
        self.process.kill()
        assert self.wait() == -signal.SIGKILL, f"the run had ended before it was killed: {self.text()}"

    def wait(self) -> int:
        """Return the exit code; a run that hangs fails the test."""
        self.process.join(TIMEOUT_S)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"the run hangs: {self.text()}")
        self.reader.join(TIMEOUT_S)
        return self.process.exitcode

    def text(self) -> str:
        """Return what the run has printed."""
        return b"".join(self.printed).decode()

    def ends_well(self) -> None:
        """Expect exit code 0."""
        assert self.wait() == 0, self.text()

    def is_refused(self, *fragments: str) -> str:
        """Expect exit code 2 and one paragraph that holds `fragments`, without a traceback, and return it."""
        assert self.wait() == 2, self.text()
        assert "Traceback" not in self.text() and "--- Logging error" not in self.text(), self.text()
        *_, message = self.text().rstrip().splitlines()
        assert message.startswith("error: ") and len(message) < 2000
        for fragment in fragments:
            assert fragment in message, message
        return message


@pytest.fixture(scope="session")
def _context():
    """Fork processes from a server that has imported the scripts."""
    former = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [former])])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    yield context
    os.environ.pop("PYTHONPATH") if former is None else os.environ.update(PYTHONPATH=former)


@pytest.fixture
def launch(_context):
    """Return launch(script, *argv, before=(function, *arguments)), which starts a `Run` that calls `before` first."""
    runs = []

    def start(script, *argv, before=None):
        ours, theirs = _context.Pipe(duplex=False)  # not a file, whose size a test may limit
        process = _context.Process(target=_run, args=(script, [str(a) for a in argv], theirs, before))
        process.start()
        theirs.close()
        printed = []
        reader = threading.Thread(target=_read, args=(ours, printed), daemon=True)
        reader.start()
        runs.append(Run(process, reader, printed))
        return runs[-1]

    yield start
    for run in runs:
        with contextlib.suppress(ValueError):
            run.process.kill()


@pytest.fixture
def small(tmp_path):
    """Write a YAML like `tiny` with its own images and store, in tmp_path/data, for faults that change them."""
    root = write_rgbnt201(tmp_path / "data", images_per_id=2)
    path = tmp_path / "small.yml"
    path.write_text(
        f"""
MODEL: {{TRANSFORMER_TYPE: ViT-Test}}
INPUT: {{SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}}
DATASETS: {{NAMES: RGBNT201, ROOT_DIR: {root}}}
DATALOADER: {{NUM_WORKERS: 0, NUM_INSTANCE: 2}}
SOLVER: {{MAX_EPOCHS: 2, WARMUP_EPOCHS: 1, IMS_PER_BATCH: 4, BACKBONE_LR: 0.001, BASE_LR: 0.001}}
OUTPUT_DIR: {tmp_path / "out"}
"""
    )
    return path
