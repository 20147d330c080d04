"""Without the optional packages the core trains, every tool can be imported, and what needs a package names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.extras import import_extra

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
for extra in ("jinja2", "matplotlib", "pandas", "scipy", "sklearn", "submitit", "tensorboard", "threadpoolctl"):
    sys.modules[extra] = None  # as if it were not installed

import train_net
from tools.ablate.__main__ import main as ablate
from tools.benchmark.__main__ import main as benchmark
from tools.check_data.__main__ import main as check_data
from tools.visualize.__main__ import main as visualize
from utils.script import run_script

sys.argv[0] = "train_net.py"
tools = [lambda: visualize(["curves"]), lambda: ablate(["--output", "sweep"])]
print(*map(run_script, [train_net.main, *tools]))
"""


@pytest.mark.slow
def test_the_core_works_without_them(tiny, tmp_path):
    command = [sys.executable, "-c", WITHOUT, "--config_file", str(tiny), "SOLVER.MAX_EPOCHS", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["0 2 2"], done.stdout + done.stderr
    assert done.stderr.splitlines() == [
        f"error: tools.{tool} needs matplotlib, which is not installed: pip install matplotlib."
        for tool in ("visualize", "ablate")
    ]
    assert (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "tensorboard").exists()


def test_a_broken_package_is_not_reported_as_absent(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        import_extra("broken_extra", "A test")
    with pytest.raises(UserError, match=r"^A test needs pip-name, which .*: pip install pip-name\. Or go without\.$"):
        import_extra("absent_extra.part", "A test", package="pip-name", otherwise="go without")
