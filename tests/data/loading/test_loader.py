"""Worker processes of the loader end with the script, even if something still holds the loader."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys, torch
from configs import get_cfg
from data.build import build_data, build_eval_loader
cfg = get_cfg(sys.argv[1], ["DATALOADER.NUM_WORKERS", 1])
loader = build_eval_loader(cfg, build_data(cfg).test, torch.device("cpu"))  # held until after the exit handlers
print(len(next(iter(loader))), "images")
"""


def test_a_script_that_still_holds_its_loader_ends(tiny):
    command = [sys.executable, "-c", SCRIPT, str(tiny)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout == "16 images\n", result.stderr
