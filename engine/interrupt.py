"""SIGINT and SIGTERM as a request to save and stop, honoured between two steps."""

from __future__ import annotations

import logging
import signal
from types import FrameType

from utils import distributed

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was asked to stop and has saved its state; `exit_code` is the shell's 128 + signal number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopRequest:
    """A context that keeps the first signal for `poll` and raises KeyboardInterrupt at the second."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._former: dict[int, signal.Handlers] = {}

    def poll(self) -> int | None:
        """Return the signal that any process has received, or None. It is collective: call it in every process."""
        return distributed.all_reduce_max(self.signum or 0) or None

    def __enter__(self) -> StopRequest:
        self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        logger.info("%s: saving after this step. Send it again to stop at once.", signal.Signals(signum).name)
