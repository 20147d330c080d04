"""The one exception that means 'the user can mend this', and how the scripts end on it."""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """A mistake in the input: the message says what, what was got, what is allowed and what to do.

    The entry scripts print it as one paragraph without a traceback and exit with a code other than 0.
    Anything else that is raised is a defect of the program and keeps its traceback.
    """


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main` and give its exit code; a user's error becomes one paragraph on stderr.

    What the machine refuses (a full disk, too little memory on the card) is the user's to mend, too.
    """
    import torch

    try:
        return main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    except torch.OutOfMemoryError as error:
        message = f"{str(error).splitlines()[0]} Lower SOLVER.IMS_PER_BATCH or TEST.IMS_PER_BATCH."
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    return EXIT_USER_ERROR
