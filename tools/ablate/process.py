"""One run in a process of its own: started, watched, asked to stop, and what became of it noted in its folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tools.ablate.plan import Run
from tools.ablate.records import STATE, config_differences, is_finished, read_state
from utils.provenance import ROOT, commit

PROCESS_LOG, LOCK = "process.log", ".lock"


class RunProcess:
    """train_net.py at work on a run. Make one with `start`."""

    def __init__(self, run: Run, process: subprocess.Popen) -> None:
        self.run = run
        self._process = process

    @classmethod
    def start(cls, run: Run, *, device: str | None, threads: int) -> RunProcess | None:
        """Start or continue a run, or None when another process is at it.

        The child holds a lock on the run's folder for as long as it lives, so that a sweep that is started again after
        its former self was killed does not write into a run that is still going on.

        Args:
            device: CUDA_VISIBLE_DEVICES of the child; None leaves it.
            threads: OMP_NUM_THREADS of the child.
        """
        run.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(run.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        # A run of another configuration is not continued: train_net.py sets it aside and starts anew.
        resume = [] if config_differences(run) else ["--resume", "auto"]
        command = [sys.executable, str(ROOT / "train_net.py"), *run.argv[:2], *resume, *run.argv[2:]]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
        env |= {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        start = {"time": now(), "commit": commit(), "threads": threads, "device": device}
        with open(run.folder / PROCESS_LOG, "a", encoding="utf-8") as log:
            print(f"\n{start['time']} {' '.join(command[1:])}", file=log, flush=True)
            # A session of its own: the terminal's Ctrl-C reaches the sweep alone, which passes it on once.
            with _warning_blocked():
                process = subprocess.Popen(
                    command, env=env, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,)
                )
        os.close(lock)  # the child's copy holds it
        state = read_state(run.folder)
        _write_state(run.folder, {"starts": [*state.get("starts", []), {**start, "pid": process.pid}]})
        return cls(run, process)

    def poll(self) -> bool:
        """Whether it has ended; how is then in the folder."""
        exit_code = self._process.poll()
        if exit_code is None:
            return False
        state = read_state(self.run.folder)
        if exit_code == 0 and not is_finished(self.run):
            exit_code = 1
        message = "" if exit_code == 0 else _last_words(self.run.folder / PROCESS_LOG, exit_code)
        _write_state(self.run.folder, {**state, "exit_code": exit_code, "message": message})
        return True

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Ask it to save and stop (a second time: to stop at once)."""
        if self._process.poll() is None:
            self._process.send_signal(signum)

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()
        self.poll()


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextlib.contextmanager
def _warning_blocked() -> Iterator[None]:
    """Processes started within it never see SIGUSR2, nor do theirs.

    Slurm sends it to every process of a job some time before the end. It is for the job itself, which then stops the
    run (`submit.Job.checkpoint`); the run and its loader's processes would die of it.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    temporary = folder / f".{STATE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / STATE)


def _last_words(log: Path, exit_code: int) -> str:
    """The error that a run ended on: its own paragraph, or the last line of its log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines[-3:] if line.startswith("error: ")]
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    return f"{how}: {(errors or lines)[-1].removeprefix('error: ')}"
