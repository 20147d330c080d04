"""Start, watch and stop one run in a process of its own, and note its end in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from tools.ablate.plan import Run
from tools.ablate.records import STATE, config_differences, is_finished, read_state
from utils.errors import UserError
from utils.files import atomic_write
from utils.provenance import ROOT, commit

PROCESS_LOG, LOCK = "process.log", ".lock"


class RunProcess:
    """A RunProcess is train_net.py at work on a run. Make one with `start`."""

    def __init__(self, run: Run, process: subprocess.Popen) -> None:
        self.run = run
        self._process = process

    @classmethod
    def start(cls, run: Run, *, device: str | None, threads: int) -> RunProcess | None:
        """Start or continue a run; return None if another process is working on it.

        The child holds a lock on the folder for as long as it lives. A sweep that is started again after it was
        killed therefore does not write into a run that is still alive.

        Args:
            device: CUDA_VISIBLE_DEVICES of the child; None leaves it unchanged.
            threads: OMP_NUM_THREADS of the child.

        Raises:
            UserError: this system has no file locks.
        """
        if fcntl is None:
            raise UserError(
                f"tools.ablate cannot train on {sys.platform}, because it locks the folders of its runs with fcntl. "
                "Train on Linux or macOS; --report_only works everywhere."
            )
        run.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(run.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        # A run with another configuration is not continued: train_net.py sets it aside and starts again.
        resume = [] if config_differences(run) else ["--resume", "auto"]
        command = [sys.executable, str(ROOT / "train_net.py"), *run.argv[:2], *resume, *run.argv[2:]]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
        env |= {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        start = {"time": now(), "commit": commit(), "threads": threads, "device": device}
        with open(run.folder / PROCESS_LOG, "a", encoding="utf-8") as log:
            print(f"\n{start['time']} {' '.join(command[1:])}", file=log, flush=True)
            # In a new session the terminal's Ctrl-C reaches the sweep alone, which passes it on once.
            with _slurm_warning_blocked():
                process = subprocess.Popen(
                    command, env=env, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,)
                )
        os.close(lock)  # the child holds a copy
        earlier = read_state(run.folder).get("starts", [])
        _write_state(run.folder, {"starts": [*earlier, {**start, "pid": process.pid}]})
        return cls(run, process)

    def poll(self) -> bool:
        """Return True once the process has ended and its end is noted in the folder."""
        exit_code = self._process.poll()
        if exit_code is None:
            return False
        if exit_code == 0 and not is_finished(self.run):
            exit_code = 1
        message = "" if exit_code == 0 else _last_error(self.run.folder / PROCESS_LOG, exit_code)
        _write_state(self.run.folder, {**read_state(self.run.folder), "exit_code": exit_code, "message": message})
        return True

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Ask the process to save and stop; a second request makes it stop at once."""
        if self._process.poll() is None:
            self._process.send_signal(signum)

    def wait(self) -> None:
        """Wait until the process has ended."""
        self._process.wait()
        self.poll()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextlib.contextmanager
def _slurm_warning_blocked() -> Iterator[None]:
    """Block SIGUSR2 in the processes that are started in this context, and in their children.

    Slurm sends the signal to every process of a job some time before the job ends. It is meant for the job, which then
    stops the run (`submit.Job.checkpoint`); the run and the workers of its data loader would die of it.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    with atomic_write(folder / STATE, unique=True) as file:
        file.write(json.dumps(state, indent=1) + "\n")


def _last_error(log: Path, exit_code: int) -> str:
    """Return how the run ended, with its error message or else the last line of its log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines[-3:] if line.startswith("error: ")]
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    return f"{how}: {(errors or lines)[-1].removeprefix('error: ')}"
