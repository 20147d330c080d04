"""A whole sweep that is killed half-way and started again equals separate runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_net
from tests.helpers.runs import run
from tools.ablate.records import EMBEDDING, read_state

ROOT = Path(__file__).parents[3]
SEEDS = (1, 2)
GRID = {"MODEL.SDTPS_BETA": (0.1, 0.25), "MODEL.SDTPS_SPARSE_RATIO": (0.5, 0.75)}


def start(tiny, folder):
    grids = [f"--grid={key}={','.join(map(str, values))}" for key, values in GRID.items()]
    command = [sys.executable, "-m", "tools.ablate", "--config_file", tiny, *grids, "--seeds", "1,2"]
    command += ["--jobs", "2", "--output", folder, "SOLVER.MAX_EPOCHS", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, command)], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_sweep_that_was_killed_reports_what_separate_runs_give(tiny, tmp_path, request):
    folder = tmp_path / "sweep"
    process, until = start(tiny, folder), time.time() + 240
    while len(list(folder.glob("*/*/results.json"))) < 3:
        assert process.poll() is None and time.time() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # its runs go on for a while, and are not run twice
    process.communicate()
    again = start(tiny, folder)
    printed, _ = again.communicate(timeout=240)
    assert again.returncode == 0, printed
    content = json.loads((folder / "report.json").read_text())
    assert content["finished"] == content["asked"] == 8 and len(content["costs"]) == 4
    assert len(content["command"]) == 1 and "python -m tools.ablate --config_file" in content["command"][0]
    assert all(len(read_state(folder)["starts"]) <= 2 for folder in folder.glob("*/seed*"))
    reported = {(row["variant"], row["descriptor"], row["row"], row["metric"]): row for row in content["comparisons"]}

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as the sweep's runs had
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    for beta in GRID["MODEL.SDTPS_BETA"]:
        for ratio in GRID["MODEL.SDTPS_SPARSE_RATIO"]:
            name = f"BETA={beta},SPARSE_RATIO={ratio}"
            for seed in SEEDS:
                out = tmp_path / "separate" / name / str(seed)
                keys = {"SDTPS_BETA": beta, "SDTPS_SPARSE_RATIO": ratio}
                opts = [str(word) for key, value in keys.items() for word in (f"MODEL.{key}", value)]
                argv = ["--config_file", tiny, *opts, "SOLVER.SEED", seed, "SOLVER.MAX_EPOCHS", 2, "OUTPUT_DIR", out]
                assert run(train_net, *argv) == 0
                results = json.loads((out / "results.json").read_text())
                assert results["peak_memory_mib"] > 50 and results["samples_per_s"] > 0
                for row in results["rows"][1:]:
                    kind = row["name"].split()[0]
                    for descriptor, metrics in row["eval"].items():
                        for metric in ("mAP", "R1"):
                            values = reported[name, descriptor, kind, metric]["values"]
                            assert values[str(seed)] == metrics[metric]
            last = reported[name, EMBEDDING, "last", "mAP"]
            assert last["mean"] == pytest.approx(sum(last["values"].values()) / 2, abs=1e-12)
            assert last["values"] == reported[name, "sdtps", "last", "mAP"]["values"]
