"""Without the extras the core trains, every tool can be imported, and what needs one names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.extras import import_extra

ROOT = Path(__file__).parents[2]
WITHOUT = """
import pkgutil, sys
sys.path.insert(0, {root!r})
for extra in ("jinja2", "matplotlib", "pandas", "scipy", "sklearn", "submitit", "tensorboard", "threadpoolctl"):
    sys.modules[extra] = None  # as if it were not installed

import train_net, tools
from utils.script import run_script

for module in pkgutil.walk_packages(tools.__path__, "tools."):
    __import__(module.name)
sys.argv[0] = "train_net.py"
codes = [run_script(train_net.main), run_script(lambda: sys.modules["tools.visualize"].main(["curves"]))]
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
    assert done.stdout.splitlines()[-1:] == ["0 2"], done.stdout + done.stderr
    assert done.stderr.splitlines() == [
        "error: tools.visualize needs matplotlib, which is not installed: pip install matplotlib."
    ]
    assert (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "tensorboard").exists()


def test_one_that_is_there_and_broken_is_no_mistake_of_the_users(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        import_extra("broken_extra", "A test")
    with pytest.raises(UserError, match=r"^A test needs pip-name, which .*: pip install pip-name\. Or go without\.$"):
        import_extra("absent_extra.part", "A test", package="pip-name", otherwise="go without")
