"""Submit the runs of a sweep as jobs of a cluster, through submitit (optional)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.compat import literal
from tools.ablate.plan import Run
from tools.ablate.process import RunProcess
from tools.ablate.records import is_finished
from tools.ablate.runner import Progress, threads_per_job, unfinished
from utils.errors import UserError
from utils.extras import import_extra
from utils.provenance import ROOT

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class Job:
    """A Job trains one run; submitit calls it, and `checkpoint` before the job is preempted or times out."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._process: RunProcess | None = None

    def __call__(self) -> None:
        """Train the run, unless it is finished by now or another job is working on it."""
        if not is_finished(self.run):
            self._process = RunProcess.start(self.run, device=None, threads=threads_per_job(1))
        if self._process is not None:
            self._process.wait()

    def checkpoint(self) -> Any:
        """Let the run save, and queue the rest of it."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop()
            self._process.wait()
        return DelayedSubmission(Job(self.run))


def submit_all(runs: Sequence[Run], *, cluster: str, folder: Path, settings: Sequence[str], jobs: int | None) -> None:
    """Submit every run that is not finished and wait; a signal ends the waiting, not the jobs.

    Args:
        cluster: 'slurm', or 'local' for processes on this machine.
        folder: the folder that submitit writes into, on a disk that the jobs see.
        settings: 'NAME=VALUE' of submitit's AutoExecutor, such as slurm_partition=gpu or timeout_min=600.
        jobs: the number of jobs that Slurm may run at the same time; None leaves it to the cluster.

    Raises:
        UserError: submitit is not installed, there is no such cluster, or it refuses a setting.
    """
    submitit = import_extra("submitit", "--submit")
    parameters: dict[str, Any] = {"name": "ablate", "timeout_min": 24 * 60}
    if cluster == "slurm":
        parameters |= {"gpus_per_node": 1, "cpus_per_task": 4} | ({"slurm_array_parallelism": jobs} if jobs else {})
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--submit_set is {setting!r}. Allowed: NAME=VALUE, such as slurm_partition=gpu.")
        parameters[name] = literal(value)
    pending = unfinished(runs)
    if not pending:
        return
    # The jobs unpickle `Job` by its name.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
        with executor.batch():
            submitted = [executor.submit(Job(run)) for run in pending]
    except (RuntimeError, TypeError, NameError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"submitit could not submit to {cluster}: {error}") from error
    logger.info("%d jobs submitted; their logs are in %s.", len(submitted), folder)
    try:
        with Progress(runs) as progress:
            while (ended := sum(job.done() for job in submitted)) < len(submitted):
                time.sleep(POLL_SECONDS)
                progress.look_at(pending, f"{ended} of {len(submitted)} jobs ended")
    except KeyboardInterrupt:
        logger.info("The jobs go on. --report_only shows how far they are; the same command waits for them again.")
