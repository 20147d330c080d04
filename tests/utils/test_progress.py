"""The time that is left is estimated from the pace."""

import time

import pytest

from utils.progress import Pace


@pytest.mark.parametrize(
    ("done_before", "epoch", "expected"),
    [(0, 1, "1:30:00"), (0, 4, "0:15:00"), (3.5, 4, "2:00:00"), (0, 10, "0:00:00")],
)
def test_the_time_left_goes_by_the_pace_since_the_start(monkeypatch, done_before, epoch, expected):
    """Of ten epochs, 600 s have passed: after the fourth, 6 epochs at 150 s each remain, and so on."""
    pace = Pace(done_before, 10)
    monkeypatch.setattr(time, "perf_counter", lambda: pace.start + 600)
    assert pace.time_left(epoch) == expected
