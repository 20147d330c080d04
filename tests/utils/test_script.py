"""The exit code and what is printed depend on the way in which a script ends."""

import pytest
import torch

from utils.errors import UserError
from utils.script import run_script


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("wrong\nkey"), 2, "error: wrong key"),
        (OSError(28, "No space left on device", "x"), 2, "error: No space left on device: x."),
        (torch.OutOfMemoryError("out of memory\nmore"), 2, "error: out of memory Lower SOLVER.IMS_PER_BATCH"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_a_user_error_is_one_paragraph(capsys, error, code, message):
    def main():
        raise error

    assert run_script(main) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_defect_keeps_its_traceback_and_success_its_code():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 // 0)
    assert run_script(lambda: 7) == 7
