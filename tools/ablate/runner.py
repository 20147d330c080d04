"""Train all runs of a sweep on this machine, a few at a time, with one progress bar over all epochs."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence

import torch
from tqdm import tqdm

from configs import get_cfg
from data.build import build_data
from engine.interrupt import StopRequest
from tools.ablate.plan import Run
from tools.ablate.process import RunProcess
from tools.ablate.records import EMBEDDING, FINISHED, STOPPED, config_differences, epochs_done, is_finished, read_run
from utils.cpus import available_cpus
from utils.errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device not in ("", "-1")]
    return [str(index) for index in range(torch.cuda.device_count())]


def choose_slots(runs: Sequence[Run], jobs: int | None) -> list[str | None]:
    """Return the GPU of each run that is active at the same time; None stands for the CPU.

    Args:
        jobs: the number of runs at the same time; None means one per GPU, or one on the CPU.

    Raises:
        UserError: a variant asks for a certain GPU, but the sweep assigns the GPUs.
    """
    wanted = {run.variant.config["MODEL.DEVICE"] for run in runs}
    if fixed := sorted(device for device in wanted if device.startswith("cuda:")):
        raise UserError(
            f"MODEL.DEVICE is {fixed[0]}, but a sweep gives every run a GPU of its own. Set MODEL.DEVICE: auto, and "
            "choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    devices: list[str | None] = [] if wanted == {"cpu"} else [*visible_devices()]
    devices = devices or [None]
    return [devices[i % len(devices)] for i in range(jobs or len(devices))]


def threads_per_job(jobs: int) -> int:
    """Return OMP_NUM_THREADS if it is set, or else an equal share of the CPUs that this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdecimal() else max(1, available_cpus() // jobs)


def prepare_data(runs: Sequence[Run]) -> None:
    """Find and decode every data set once, before several runs share it.

    Raises:
        UserError: a data set is missing or broken.
    """
    sections = ("DATASETS.", "SYNTHETIC.", "INPUT.SIZE", "DATALOADER.")
    seen: set[tuple] = set()
    for run in runs:
        data = tuple((key, str(value)) for key, value in run.variant.config.items() if key.startswith(sections))
        if data not in seen and run.variant.config["DATALOADER.CACHE"] != "off":
            build_data(get_cfg(run.variant.config_file, run.variant.opts))
        seen.add(data)


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that are not finished and log how many there are."""
    pending = [run for run in runs if not is_finished(run)]
    logger.info("%d of %d runs are finished.", len(runs) - len(pending), len(runs))
    return pending


class Progress(tqdm):
    """This bar shows the epochs of all runs, which it reads from the files that the runs write."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._done, self._note = {run.name: _epochs_kept(run) for run in runs}, ""
        total, initial = sum(run.max_epochs for run in runs), sum(self._done.values())
        super().__init__(total=total, initial=initial, desc="sweep", unit="epoch", dynamic_ncols=True)

    def look_at(self, runs: Iterable[Run], note: str) -> None:
        """Count the epochs of the runs that may have advanced, and show `note` at the end of the bar."""
        self._done |= {run.name: _epochs_kept(run) for run in runs}
        advance = sum(self._done.values()) - self.n
        if advance or note != self._note:
            self._note = note
            self.set_postfix_str(note, refresh=False)
            self.update(advance)
            self.refresh()


def _epochs_kept(run: Run) -> int:
    return 0 if config_differences(run) else epochs_done(run.folder)


def run_all(runs: Sequence[Run], *, slots: Sequence[str | None], threads: int) -> int | None:
    """Train every run that is not finished; a run that fails does not stop the others.

    Returns:
        The signal that stopped the sweep, or None. After the first signal the runs save and stop; a second one kills
        them, which loses what they did since their last checkpoint.
    """
    pending, announced = deque(unfinished(runs)), set()
    active: dict[int, RunProcess] = {}
    try:
        with StopRequest() as stop, Progress(runs) as progress:
            while active or (pending and stop.signum is None):
                for slot, device in enumerate(slots):
                    free = slot not in active and stop.signum is None
                    if free and (process := _start_next(pending, announced, device, threads)):
                        active[slot] = process
                time.sleep(POLL_SECONDS)
                names = sorted(process.run.name for process in active.values())
                note = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                progress.look_at([process.run for process in active.values()], note)
                for slot in [slot for slot, process in active.items() if process.poll()]:
                    _log_end(active.pop(slot).run)
                if stop.signum is not None:
                    _end_all(active, signal.SIGINT)
            return stop.signum
    except KeyboardInterrupt:
        _end_all(active, signal.SIGKILL)
        return signal.SIGINT
    finally:
        for process in active.values():  # only after an error of the sweep itself
            process.stop()


def _start_next(pending: deque[Run], announced: set[str], device: str | None, threads: int) -> RunProcess | None:
    """Start the first run that is not finished by now and that no other process is working on."""
    for _ in range(len(pending)):
        run = pending.popleft()
        if is_finished(run):
            continue
        if changed := config_differences(run):
            keys = ", ".join(f"{key} was {was}, is {asked}" for key, (was, asked) in changed.items())
            logger.info("%s: the run in its folder had another configuration and is set aside: %s.", run.name, keys)
        if process := RunProcess.start(run, device=device, threads=threads):
            return process
        if run.name not in announced:
            logger.info("%s: another process is working on it; waiting.", run.name)
        announced.add(run.name)
        pending.append(run)
    return None


def _end_all(active: dict[int, RunProcess], signum: int) -> None:
    """Send a signal to all processes and wait until they have ended."""
    for process in active.values():
        process.stop(signum)
    for process in active.values():
        process.wait()


def _log_end(run: Run) -> None:
    record = read_run(run)
    if record.status == FINISHED:
        metrics = (record.metric("last", EMBEDDING, name) for name in ("mAP", "R1"))
        logger.info("%s: mAP %.1f, R1 %.1f (last)", run.name, *metrics)
    elif record.state.get("exit_code") not in STOPPED:
        logger.info("%s FAILED: %s", run.name, record.message)
