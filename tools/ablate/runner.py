"""All runs of a sweep on this machine, a few at a time, with one bar over all epochs."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Sequence

from tqdm import tqdm

from configs import get_cfg
from data.build import build_data
from engine.interrupt import StopRequest
from tools.ablate.plan import Run
from tools.ablate.process import RunProcess
from tools.ablate.records import FINISHED, STOPPED, config_differences, epochs_done, is_finished, read_run
from utils.cpus import available_cpus
from utils.errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def choose_slots(runs: Sequence[Run], jobs: int | None) -> list[str | None]:
    """The GPU of each run that goes on at the same time: one each by default; None stands for the CPU.

    Raises:
        UserError: a run asks for a certain GPU, which is the sweep's to give.
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
    """OMP_NUM_THREADS as set, else an equal share of the CPUs that this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdecimal() else max(1, available_cpus() // jobs)


def prepare_data(runs: Sequence[Run]) -> None:
    """Find, and decode where need be, every data set once before runs share it.

    Raises:
        UserError: a data set is missing or broken; better now than in every run.
    """
    seen: set[tuple] = set()
    for run in runs:
        sections = ("DATASETS.", "SYNTHETIC.", "INPUT.SIZE", "DATALOADER.")
        data = tuple((key, str(value)) for key, value in run.variant.config.items() if key.startswith(sections))
        if data not in seen and run.variant.config["DATALOADER.CACHE"] != "off":
            build_data(get_cfg(run.variant.config_file, run.variant.opts))
        seen.add(data)


class Progress:
    """One bar over the epochs of all runs, read from what they write."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._done = {run.name: 0 if config_differences(run) else epochs_done(run.folder) for run in runs}
        self._bar = tqdm(
            total=sum(run.max_epochs for run in runs),
            initial=sum(self._done.values()),
            desc="sweep",
            unit="epoch",
            dynamic_ncols=True,
        )
        self._note = ""

    def update(self, runs: Sequence[Run], note: str) -> None:
        """Look at the runs that may have moved on; `note` stands at the end of the bar."""
        for run in runs:
            self._done[run.name] = 0 if config_differences(run) else epochs_done(run.folder)
        moved = sum(self._done.values()) - self._bar.n
        if moved or note != self._note:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(moved)
            self._bar.refresh()
        self._note = note

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def run_all(runs: Sequence[Run], *, slots: Sequence[str | None], threads: int) -> int | None:
    """Bring every run to its end that is not there yet; those that fail do not stop the rest.

    Returns:
        The signal that stopped the sweep, or None. After the first signal the runs save and stop; a second one kills
        them, which costs what they did since their last checkpoint.
    """
    pending = deque(run for run in runs if not is_finished(run))
    logger.info("%d runs, %d of them finished; %d at a time.", len(runs), len(runs) - len(pending), len(slots))
    active: dict[int, RunProcess] = {}
    waiting: set[str] = set()
    progress = Progress(runs)
    try:
        with StopRequest() as stop:
            while (pending and stop.signum is None) or active:
                for slot in range(len(slots)):
                    if slot not in active and stop.signum is None:
                        process = _start_next(pending, waiting, slots[slot], threads)
                        if process is not None:
                            active[slot] = process
                time.sleep(POLL_SECONDS)
                progress.update([process.run for process in active.values()], _note(active))
                for slot, process in list(active.items()):
                    if process.poll():
                        del active[slot]
                        _report_end(process.run)
                if stop.signum is not None and active:
                    _stop_all(active)
            return stop.signum
    except KeyboardInterrupt:
        for process in active.values():
            process.stop(signal.SIGKILL)
            process.wait()
        return signal.SIGINT
    finally:
        for process in active.values():
            process.stop()
        progress.close()


def _start_next(pending: deque[Run], waiting: set[str], device: str | None, threads: int) -> RunProcess | None:
    """Start the first run that is neither finished by now nor in the hands of another process."""
    for _ in range(len(pending)):
        run = pending.popleft()
        if is_finished(run):
            continue
        if changed := config_differences(run):
            keys = ", ".join(f"{key} was {was}, is {asked}" for key, (was, asked) in changed.items())
            logger.info(
                "%s: the run in its folder is set aside, for it was of another configuration: %s.", run.name, keys
            )
        process = RunProcess.start(run, device=device, threads=threads)
        if process is not None:
            return process
        if run.name not in waiting:
            waiting.add(run.name)
            logger.info("%s: another process is at it; waiting.", run.name)
        pending.append(run)
    return None


def _stop_all(active: dict[int, RunProcess]) -> None:
    """Pass the request to stop on, once, and wait until the runs have saved."""
    for process in active.values():
        process.stop()
    for process in active.values():
        process.wait()


def _report_end(run: Run) -> None:
    record = read_run(run)
    if record.status == FINISHED:
        logger.info(
            "%s: mAP %.1f, R1 %.1f (last)", run.name, *(record.figure("last", "headline", m) for m in ("mAP", "R1"))
        )
    elif record.state.get("exit_code") not in STOPPED:
        logger.info("%s FAILED: %s", run.name, record.message)


def _note(active: dict[int, RunProcess]) -> str:
    names = sorted(process.run.name for process in active.values())
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
