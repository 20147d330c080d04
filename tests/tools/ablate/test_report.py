"""Test how run folders become a report: the metrics, the verdicts, what is flagged, and the files."""

import json
import statistics
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from tests.helpers.sweeps import write_run
from tools.ablate import stats
from tools.ablate.__main__ import main
from tools.ablate.charts import _shorten
from tools.ablate.plan import plan_sweep
from tools.ablate.records import EMBEDDING, STATE
from tools.ablate.report import write_report
from tools.ablate.tables import Table, costs, result_table
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
FULL = str(ROOT / "configs" / "Synthetic" / "DeMo_SDTPS.yml")
SCORES = {
    "plain": {1: 40.0, 2: 42.0, 3: 44.0},
    "full": {1: 45.0, 2: 47.5, 3: 50.0},  # +5, +5.5, +6
    "noisy": {1: 46.0, 2: 36.0, 3: 44.5},  # +6, -6, +0.5
}
TABLE = {"plain": {"MODEL.USE_SDTPS": False}, "full": {}, "noisy": {"MODEL.SDTPS_BETA": 0.1}}


def make(tmp_path, table=TABLE, *, seeds=(1, 2, 3)):
    sweep = plan_sweep(tmp_path, table, config_file=FULL, opts=(), seeds=seeds, reference="plain")
    sweep.save()
    return sweep


@pytest.fixture
def sweep(tmp_path):
    sweep = make(tmp_path)
    for i, run in enumerate(sweep.runs):
        score = SCORES[run.variant.name][run.seed]
        embedding = "ori" if run.variant.name == "plain" else "sdtps"
        write_run(run, score, best=score + 1, embedding=embedding, weight=float(i))
    return sweep


def row(table, name):
    return next(row for row in table.rows if row[0] == f"**{name}**")


def test_metrics_differences_and_verdicts(sweep):
    summary = write_report(sweep)
    last = summary.find("full")
    assert (last.mean, last.std) == (47.5, 2.5) and last.values == SCORES["full"]
    pair = last.difference  # embedding minus embedding: sdtps minus ori, which is 1 lower
    assert pair.by_seed == {1: 6.0, 2: 6.5, 3: 7.0} and pair.mean == 6.5
    assert pair.low == pytest.approx(6.5 - 4.302653 * 0.5 / 3**0.5, abs=1e-5)
    assert last.verdict == "higher" and last.p_holm == pytest.approx(2 * pair.p)
    same_descriptor = summary.find("full", descriptor="ori", metric="R1").difference
    assert same_descriptor.by_seed == {1: 5.0, 2: 5.5, 3: 6.0}
    best = summary.find("full", row="best")
    assert best.mean == 48.5 and best.difference.mean == 6.5, "best is compared with best"
    noisy = summary.find("noisy")
    assert (noisy.verdict, noisy.words) == ("indistinguishable", "not distinguishable with 3 seeds")
    assert noisy.difference.seeds_needed == stats.seeds_needed(7 / 6, statistics.stdev([7, -5, 1.5]))
    reference = summary.find("plain")
    assert (reference.mean, reference.verdict, reference.difference) == (41.0, "reference", None)
    assert summary.warnings == [] and len(summary.finished()) == len(summary.records) == 9


def test_scores_are_one_long_table(sweep):
    scores = write_report(sweep).scores
    assert [*scores.columns] == ["variant", "seed", "descriptor", "row", "metric", "value"]
    assert len(scores) == 9 * 3 * 2 * 2 and {*scores["descriptor"]} == {EMBEDDING, "ori", "sdtps"}
    wanted = {"variant": "full", "seed": 2, "descriptor": "ori", "row": "best", "metric": "R1"}
    assert scores[(scores[[*wanted]] == [*wanted.values()]).all(axis=1)]["value"].tolist() == [57.5]


def test_curves_and_costs(sweep):
    summary = write_report(sweep)
    full = summary.curves[summary.curves["variant"] == "full"].groupby("quantity")
    score, loss = full.get_group("mAP"), full.get_group("loss")
    assert score["epoch"].tolist() == [0, 1, 2] and score["mean"].tolist()[-1] == 47.5
    assert loss["std"].tolist()[-1] == pytest.approx(0.25)
    assert costs(summary)[1] == {
        "variant": "full", "trainable_params": 437259, "layer_macs": 137474112, "attention_macs": 28755648,
        "samples_per_s": 52.0, "samples_per_s_std": 1.0, "peak_memory_mib": 812.5, "peak_memory_mib_std": 0.0,
    }  # fmt: skip


def test_an_epoch_that_a_seed_lacks_is_in_no_curve(sweep):
    metrics = sweep.runs[1].folder / "metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.read_text().splitlines(True) if '"epoch": 1' not in line))
    curves = write_report(sweep).curves
    assert {*curves[curves["variant"] == "full"]["epoch"]} == {0, 2}
    assert {*curves[curves["variant"] == "noisy"]["epoch"]} == {0, 1, 2}


def test_the_report_says_it(sweep):
    write_report(sweep)
    markdown = (sweep.folder / "report.md").read_text()
    expected = (
        "3 variants × 3 seeds on synthetic", "+6.50 [+5.26, +7.74]", "not distinguishable with 3 seeds", "47.50 ± 2.50",
        "MODEL.SDTPS_BETA: 0.25 → 0.1", "0.437 M", "0.137 + 0.029 G", "52.0 ± 1.0", "812 MiB",
        "chosen on the test set", "The data are synthetic", "`abc`", "`plain/seed1` | 39.00 | 40.00", "scipy ",
    )  # fmt: skip
    for said in expected:
        assert said in markdown, said
    for name in ("differences.svg", "curves.svg"):
        xml.dom.minidom.parse(str(sweep.folder / name))
        assert f"({name})" in markdown
    assert {path.name for path in sweep.folder.glob("*.*")} == {
        "report.md", "report.json", "differences.svg", "curves.svg", "sweep.json",
    }  # fmt: skip


def test_the_numbers_behind_the_report(sweep):
    summary = write_report(sweep)
    content = json.loads((sweep.folder / "report.json").read_text())
    assert content["reference"] == "plain" and content["finished"] == content["asked"] == 9
    wanted = {"variant": "full", "descriptor": EMBEDDING, "row": "last", "metric": "mAP"}
    (found,) = (row for row in content["comparisons"] if wanted.items() <= row.items())
    assert found["values"] == {"1": 45.0, "2": 47.5, "3": 50.0} and found["verdict"] == "higher"
    assert found["difference"]["p"] == summary.find("full").difference.p
    assert content["costs"] == costs(summary) and content["commit"] == ["abc"]


def test_equal_runs_give_equal_pictures(sweep):
    def pictures():
        write_report(sweep)
        return [(sweep.folder / name).read_bytes() for name in ("differences.svg", "curves.svg")]

    assert pictures() == pictures()


def test_cells_of_a_table():
    table = Table("t", ["a", "b"], [["x | y\nz", None], [["1", "2"], []]])
    assert table.markdown().splitlines() == ["| a | b |", "| --- | --- |", "| x \\| y z | – |", "| 1<br>2 | – |"]


def test_long_names_keep_both_ends():
    assert _shorten("abcdefgh", 8) == "abcdefgh"
    assert _shorten("abcdefghi", 8) == "abcd…ghi"


def test_a_key_without_effect_is_flagged(tmp_path):
    table = {"plain": {}, "log": {"SOLVER.LOG_PERIOD": 5}, "other": {"MODEL.SDTPS_BETA": 0.1}}
    sweep = make(tmp_path, table, seeds=(1, 2))
    for run in sweep.runs:
        write_run(run, 40.0 + run.seed, weight=1.0 if run.variant.name == "other" else 0.0)
    results = tmp_path / "log" / "seed1" / "metrics.jsonl"
    results.write_text(results.read_text().replace('"samples_per_s": 51', '"samples_per_s": 77'))  # times may differ
    summary = write_report(sweep)
    # 'other' has equal metrics, but other weights
    assert summary.equal_pairs == [("plain", "log", ["SOLVER.LOG_PERIOD"])]
    assert any("SOLVER.LOG_PERIOD had no effect" in warning for warning in summary.warnings)
    table = result_table(summary)
    assert row(table, "plain")[-1] == ["reference", "no effect: same as log"]
    assert row(table, "log")[-1] == ["equal to the last digit in 2 seeds", "no effect: same as plain"]
    assert "<br>no effect: same as log" in (tmp_path / "report.md").read_text()


def test_one_seed_says_so(tmp_path):
    sweep = make(tmp_path, seeds=(1,))
    for run in sweep.runs:
        write_run(run, SCORES[run.variant.name][1])
    full = write_report(sweep).find("full")
    assert full.std is None and full.difference.low is None
    markdown = (tmp_path / "report.md").read_text()
    assert "One seed: there is no interval" in markdown and "one seed: no interval, nothing can be said" in markdown


def test_runs_that_are_not_finished_are_named_and_in_no_metric(tmp_path):
    sweep = make(tmp_path)
    failed, missing, other, stopped = sweep.runs[1], sweep.runs[2], sweep.runs[4], sweep.runs[3]
    for run in sweep.runs:
        if run != missing:
            write_run(run, SCORES[run.variant.name][run.seed])
    for run in (failed, stopped):
        (run.folder / "results.json").unlink()
    (failed.folder / STATE).write_text(
        json.dumps({"starts": [], "exit_code": 2, "message": "exit code 2: no | weights"})
    )
    config = other.folder / "config.yaml"
    config.write_text(config.read_text().replace("MAX_EPOCHS: 20", "MAX_EPOCHS: 2"))
    summary = write_report(sweep)
    assert [len(summary.finished(name)) for name in ("plain", "full", "noisy")] == [2, 1, 2]
    said = "\n".join(summary.warnings)
    assert "full/seed1 is failed: exit code 2: no | weights (epoch 2 of 20)" in said
    assert "1 of 9 runs is not started: noisy/seed1" in said
    assert "plain/seed2 is incomplete: at epoch 2 of 20" in said
    assert "full/seed2 is other configuration: the folder holds a run with SOLVER.MAX_EPOCHS 2 instead of 20" in said
    assert [*summary.find("noisy").difference.by_seed] == [3], "the only seed that both have"
    assert "no \\| weights" in (tmp_path / "report.md").read_text()


def test_a_report_of_nothing(tmp_path, capsys):
    make(tmp_path)
    assert main(["--report_only", "--output", str(tmp_path)]) == 1
    assert "no variant except the reference has a finished run" in capsys.readouterr().out
    assert "no finished run" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("package", ["matplotlib", "pandas", "scipy"])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        main(["--report_only", "--output", str(tmp_path)])


def test_without_file_locks_the_tool_reports_and_refuses_to_train(sweep):
    """Where fcntl does not exist (Windows), the modules must still import."""
    script = f"""
import sys
from pathlib import Path
sys.modules["fcntl"] = None
from tools.ablate.__main__ import main
from tools.ablate.plan import load_sweep
from tools.ablate.process import RunProcess
assert main(["--report_only", "--output", {str(sweep.folder)!r}]) == 0
RunProcess.start(load_sweep(Path({str(sweep.folder)!r})).runs[0], device=None, threads=1)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and "UserError: tools.ablate cannot train on" in ended.stderr, ended.stderr
