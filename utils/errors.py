"""The one exception that means 'the user can mend this', and how the scripts end on it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

EXIT_DEFECT = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """A mistake in the input: the message says what, what was got, what is allowed and what to do.

    The entry scripts print it as one paragraph without a traceback and exit with a code other than 0.
    Anything else that is raised is a defect of the program and keeps its traceback.
    """


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main` and give its exit code; a user's error becomes one paragraph on stderr.

    What the machine refuses (a full disk, too little memory on the card) is the user's to mend, too. Of several
    processes (`utils.distributed`) the first to fail speaks, and all of them end.
    """
    import torch

    from utils import distributed

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
        message = f"Another process of this run has died without a word, or cannot be reached: {error}"
    return _fail(EXIT_USER_ERROR, f"error: {' '.join(message.splitlines())}")


def _fail(exit_code: int, text: str) -> int:
    from utils import distributed

    if distributed.first_to_fail():
        print(text, file=sys.stderr)
    return distributed.abandon(exit_code)
