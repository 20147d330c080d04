"""Test the runner with a stand-in for train_net.py that takes a moment, and once with the real one through submitit."""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tools.ablate import process, runner
from tools.ablate.__main__ import main
from tools.ablate.plan import load_sweep, plan_sweep
from tools.ablate.records import EMBEDDING, read_run, read_state
from utils import provenance
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
FULL = str(ROOT / "configs" / "Synthetic" / "DeMo_SDTPS.yml")
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
from configs import get_cfg

argv = sys.argv[1:]
resume = "--resume" in argv
opts = argv[4:] if resume else argv[2:]
cfg = get_cfg(argv[1], opts)
out = Path(cfg.OUTPUT_DIR)
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
os.kill(os.getpid(), signal.SIGUSR2)  # Slurm's warning, which is for the job alone, must not end a run
(out / "new").write_text(cfg.dump())
(out / "new").replace(out / "config.yaml")
env = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TQDM_DISABLE")}
with open(out / "calls.jsonl", "a") as file:
    file.write(json.dumps({"resume": resume, "env": env}) + "\\n")
(out / "metrics.jsonl").write_text('{"epoch": 1}\\n')
if cfg.MODEL.SDTPS_BETA == 0.3 and not (out / "fixed").exists():
    print("error: no weights", file=sys.stderr)
    sys.exit(2)
while (out.parent.parent / "slow").exists():
    time.sleep(0.02)
row = {"name": "last (epoch 1)", "epoch": 1, "eval": {"sdtps": {"mAP": 1.0, "R1": 2.0}}}
(out / "results.json").write_text(json.dumps({"headline": "sdtps", "rows": [row]}))
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Plan two variants with two seeds; one variant fails until a file 'fixed' is in the folder of the run."""
    script = tmp_path / "code" / "train_net.py"
    script.parent.mkdir()
    script.write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the stand-in imports configs
    monkeypatch.setattr(process, "ROOT", script.parent)
    monkeypatch.setattr(provenance, "ROOT", script.parent)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    return make(tmp_path)


def make(tmp_path, *opts):
    table = {"fails": {"MODEL.SDTPS_BETA": 0.3}, "works": {}}
    return plan_sweep(tmp_path, table, config_file=FULL, opts=opts, seeds=(1, 2), reference="works")


def calls(run):
    return [json.loads(line) for line in (run.folder / "calls.jsonl").read_text().splitlines()]


def statuses(sweep):
    return {run.name: read_run(run).status for run in sweep.runs}


def test_a_failing_run_is_reported_and_does_not_stop_the_rest(sweep):
    assert runner.run_all(sweep.runs, slots=[None], threads=1) is None
    assert statuses(sweep) == {
        "fails/seed1": "failed", "works/seed1": "finished", "fails/seed2": "failed", "works/seed2": "finished",
    }  # fmt: skip
    assert read_run(sweep.runs[0]).message == "exit code 2: no weights (epoch 1 of 20)"
    assert calls(sweep.runs[1])[0] == {
        "resume": True,
        "env": {
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
        },
    }
    (sweep.runs[0].folder / "fixed").touch()
    runner.run_all(sweep.runs, slots=[None], threads=1)
    assert [len(calls(run)) for run in sweep.runs] == [2, 1, 2, 1], "finished runs are skipped, failed ones tried again"
    assert statuses(sweep)["fails/seed1"] == "finished"
    assert [start["commit"] for start in read_state(sweep.runs[0].folder)["starts"]] == ["unknown"] * 2


def test_each_run_at_a_time_has_a_gpu_of_its_own(sweep, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    slots = runner.choose_slots(sweep.runs, None)
    assert slots == ["3", "5"] and runner.choose_slots(sweep.runs, 3) == ["3", "5", "3"]
    runner.run_all(sweep.runs, slots=slots, threads=1)
    assert {calls(run)[0]["env"]["CUDA_VISIBLE_DEVICES"] for run in sweep.runs} == {"3", "5"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runner.choose_slots(sweep.runs, None) == [None] and runner.choose_slots(sweep.runs, 2) == [None, None]


def test_the_processor_is_a_slot_and_a_fixed_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert runner.choose_slots(make(tmp_path, "MODEL.DEVICE", "cpu").runs, None) == [None]
    with pytest.raises(UserError, match=r"MODEL\.DEVICE is cuda:1"):
        runner.choose_slots(make(tmp_path, "MODEL.DEVICE", "cuda:1").runs, None)


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert runner.threads_per_job(4) == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert (runner.threads_per_job(4), runner.threads_per_job(24)) == (3, 1)


def test_a_run_of_another_configuration_starts_again(sweep, tmp_path):
    runner.run_all(sweep.runs, slots=[None], threads=1)
    changed = make(tmp_path, "SOLVER.MAX_EPOCHS", "30")
    assert statuses(changed)["works/seed1"] == "other configuration"
    runner.run_all(changed.runs, slots=[None], threads=1)
    assert [call["resume"] for call in calls(changed.runs[1])] == [True, False]
    assert statuses(changed)["works/seed1"] == "finished"


def test_a_signal_lets_the_runs_save_and_stops_the_sweep(sweep, tmp_path):
    works = sweep.runs[1::2]
    (tmp_path / "slow").touch()

    def interrupt():
        while not all((run.folder / "metrics.jsonl").exists() for run in works):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert runner.run_all(works, slots=[None, None], threads=1) == signal.SIGINT
    thread.join()
    assert [read_state(run.folder)["exit_code"] for run in works] == [130, 130]
    assert {read_run(run).status for run in works} == {"incomplete"}
    (tmp_path / "slow").unlink()
    assert runner.run_all(works, slots=[None], threads=1) is None
    assert all(read_run(run).status == "finished" and calls(run)[1]["resume"] for run in works)


def test_a_run_in_the_hands_of_another_process_is_waited_for(sweep):
    run = sweep.runs[1]
    run.folder.mkdir(parents=True)
    with open(run.folder / process.LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        began = time.monotonic()
        runner.run_all([run], slots=[None], threads=1)
    assert time.monotonic() - began > 0.5 and read_run(run).status == "finished" and len(calls(run)) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--config_file is missing"),
        (["--config_file", FULL], "Give either --grid"),
        (["--config_file", FULL, "--grid", "A.B=1", "--variants", "x.yml"], "Give either --grid"),
        (["--config_file", FULL, "--grid", "MODEL.SDTPS_BETA=0.1", "--jobs", "0"], "--jobs is 0"),
        (["--report_only"], "holds no sweep"),
    ],
)
def test_command_lines_that_make_no_sense(tmp_path, argv, message):
    with pytest.raises(UserError, match=message):
        main([*argv, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_submitting_needs_is_named(tiny, tmp_path, monkeypatch):
    argv = ["--config_file", str(tiny), "--grid", "MODEL.SDTPS_BETA=0.1", "--output", str(tmp_path / "sweep")]
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    with pytest.raises(UserError, match="submitit could not submit to slurm"):
        main([*argv, "--submit", "slurm"])
    with pytest.raises(UserError, match="--submit_set is 'gpu'"):
        main([*argv, "--submit", "slurm", "--submit_set", "gpu"])
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="pip install submitit"):
        main([*argv, "--submit", "slurm"])


@pytest.mark.slow
def test_runs_can_be_submitted(tiny, tmp_path):
    argv = ["--config_file", str(tiny), "--grid", "MODEL.SDTPS_BETA=0.1", "--output", str(tmp_path / "sweep")]
    submit = ["--seeds", "3", "--submit", "local", "--submit_set", "timeout_min=5"]
    assert main([*argv, *submit, "SOLVER.MAX_EPOCHS", "2"]) == 0
    run = load_sweep(tmp_path / "sweep").runs[0]
    assert read_run(run).metric("last", EMBEDDING, "mAP") > 0 and len(read_state(run.folder)["starts"]) == 1
