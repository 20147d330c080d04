"""Without the optional dependencies the core trains, every tool starts, and a tool that needs one names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.extras import import_extra

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
sys.path.insert(0, {root!r})
for extra in ("jinja2", "matplotlib", "pandas", "scipy", "sklearn", "submitit", "tensorboard", "threadpoolctl"):
    sys.modules[extra] = None  # as if it were not installed

import train_net
from tools.ablate import __main__ as ablate
from tools.benchmark import __main__ as benchmark
from tools.check_data import __main__ as check_data
from tools.visualize import __main__ as visualize
from utils.script import run_script

sys.argv[0] = "train_net.py"
codes = [run_script(train_net.main)]
codes += [run_script(lambda: visualize.main(["curves"]))]
codes += [run_script(lambda: ablate.main(["--report_only", "--output", "sweep"]))]
print(*codes)
"""


@pytest.mark.slow
def test_the_core_does_without_them(tiny, tmp_path):
    command = [
        sys.executable,
        "-c",
        WITHOUT.format(root=str(ROOT)),
        "--config_file",
        str(tiny),
        "SOLVER.MAX_EPOCHS",
        "2",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["0 2 2"], done.stdout + done.stderr
    assert done.stderr.splitlines() == [
        "error: tools.visualize needs matplotlib, which is not installed: pip install matplotlib.",
        "error: tools.ablate needs matplotlib, which is not installed: pip install matplotlib.",
    ]
    assert (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "tensorboard").exists()


def test_a_broken_package_is_no_error_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        import_extra("broken_extra", "A test")
    with pytest.raises(UserError, match=r"^A test needs pip-name, which .*: pip install pip-name\. Or go without\.$"):
        import_extra("absent_extra.part", "A test", package="pip-name", otherwise="go without")
