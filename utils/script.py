"""How the entry scripts and tools run, and the exit codes with which they end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import torch

from utils import distributed
from utils.errors import UserError

EXIT_DEFECT = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main` and give its exit code; a user's error becomes one paragraph on stderr.

    A full disk or too little memory on the GPU is also for the user to fix. Of several processes
    (`utils.distributed`), the first to fail prints its error, and all of them end.
    """
    try:
        exit_code = main()
        distributed.shutdown()
        return exit_code
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    except torch.OutOfMemoryError as error:
        remedy = "Lower SOLVER.IMS_PER_BATCH or TEST.IMS_PER_BATCH, or see SOLVER.ACCUMULATE."
        message = f"{str(error).splitlines()[0]} {remedy}"
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "Interrupted.")
    except Exception as error:
        if not distributed.is_active():
            raise
        if not distributed.is_lost_connection(error):
            return _fail(EXIT_DEFECT, traceback.format_exc())
        message = f"Another process of this run exited without an error message, or cannot be reached: {error}"
    return _fail(EXIT_USER_ERROR, f"error: {' '.join(message.splitlines())}")


def _fail(exit_code: int, text: str) -> int:
    if distributed.first_to_fail():
        print(text, file=sys.stderr)
    return distributed.abandon(exit_code)
