"""The exception for errors that the user can fix."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input: the message states the problem, the given value, the allowed values and the fix.

    The entry scripts print it as one paragraph without a traceback and exit with a code other than 0.
    Anything else that is raised is a defect of the program and keeps its traceback.
    """
