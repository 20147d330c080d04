"""From run folders to the three reports: the figures, what is flagged, and pages that stand alone."""

import json
import re
import statistics
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.helpers.sweeps import write_run
from tools.ablate import stats, svg
from tools.ablate.__main__ import main
from tools.ablate.plan import plan_sweep
from tools.ablate.records import STATE
from tools.ablate.report import write_report

FULL = str(Path(__file__).parents[3] / "configs" / "Synthetic" / "DeMo_SDTPS.yml")
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
        headline = "ori" if run.variant.name == "plain" else "sdtps"
        write_run(run, score, best=score + 1, headline=headline, weight=float(i))
    return sweep


def variant(summary, name):
    return next(entry for entry in summary["variants"] if entry["name"] == name)


def test_figures_differences_and_verdicts(sweep):
    summary = write_report(sweep)
    full = variant(summary, "full")
    last = full["features"]["headline"]["last"]["mAP"]
    assert (last["mean"], last["std"]) == (47.5, 2.5)
    pair = last["difference"]  # headline against headline: sdtps against ori, which is 1 below
    assert pair["by_seed"] == {"1": 6.0, "2": 6.5, "3": 7.0} and pair["mean"] == 6.5
    assert pair["low"] == pytest.approx(6.5 - 4.302653 * 0.5 / 3**0.5, abs=1e-5)
    assert pair["verdict"] == "higher" and pair["p_holm"] == pytest.approx(2 * pair["p"])
    same_feature = full["features"]["ori"]["last"]["R1"]["difference"]
    assert same_feature["by_seed"] == {"1": 5.0, "2": 5.5, "3": 6.0}
    best = full["features"]["headline"]["best"]["mAP"]
    assert best["mean"] == 48.5 and best["difference"]["mean"] == 6.5, "best is compared with best"
    noisy = variant(summary, "noisy")["features"]["headline"]["last"]["mAP"]["difference"]
    assert noisy["verdict"] == "indistinguishable" and noisy["words"] == "not distinguishable with 3 seeds"
    assert noisy["seeds_needed"] == stats.seeds_needed(7 / 6, statistics.stdev([7, -5, 1.5]))
    assert full["changes"] == {"MODEL.USE_SDTPS": [False, True]}
    assert full["cost"]["samples_per_s"] == {"mean": 52.0, "std": 1.0}
    assert full["curves"]["mAP"]["epoch"] == [0, 1, 2] and full["curves"]["mAP"]["mean"][-1] == 47.5
    assert full["curves"]["loss"]["std"][-1] == pytest.approx(0.25)
    assert summary["warnings"] == [] and summary["finished"] == 9


def test_the_documents_say_it(sweep):
    write_report(sweep)
    markdown, page = ((sweep.folder / f"report.{kind}").read_text() for kind in ("md", "html"))
    expected = (
        "+6.50 [+5.26, +7.74]", "not distinguishable with 3 seeds", "47.50", "MODEL.SDTPS_BETA: 0.25 → 0.1", "0.437 M",
        "0.137 + 0.029 G", "812 MiB", "chosen on the test set", "Synthetic data", "abc",
    )  # fmt: skip
    for text in (markdown, page):
        for said in expected:
            assert said in text, said
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.count("|") - line.count("\\|") >= 3 for line in rows)
    assert json.loads((sweep.folder / "report.json").read_text())["reference"] == "plain"


def test_the_page_is_well_formed_and_needs_no_network(sweep):
    write_report(sweep)
    page = (sweep.folder / "report.html").read_text()
    opened = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag, attrs):
            opened.append(tag) if tag not in ("meta", "br", "wbr") else None
            assert not {name for name, _ in attrs} & {"src", "onload"}

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Nesting().feed(page)
    assert not opened
    links = re.findall(r'(?:href|src|url\()="?([^"]*)', page)
    assert links and all((sweep.folder / link).exists() for link in links), "only folders of runs"
    assert "mAP of the headline feature on the test set" in page
    for name in ("differences.svg", "curves.svg"):
        xml.dom.minidom.parse(str(sweep.folder / name))
        assert f"({name})" in (sweep.folder / "report.md").read_text()


def test_names_are_escaped():
    chart = svg.intervals([svg.Interval("<b>&", 1.0, 0.5, 1.5)], title="a < b", standalone=True)
    assert "<b>" not in chart and "&lt;b&gt;&amp;" in chart
    xml.dom.minidom.parseString(chart)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-0.3, 0.31, [-0.2, 0, 0.2]), (41.2, 41.9, [41.2, 41.4, 41.6, 41.8]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_labels_keep_their_distance_and_their_order():
    heights = list(svg._spread([50.0, 20.0, 22.0, 99.0], 15.0, 0.0, 100.0))
    assert heights == [50.0, 20.0, 35.0, 99.0]
    crowded = list(svg._spread([100.0, 100.0, 100.0], 15.0, 0.0, 100.0))
    assert crowded == [70.0, 85.0, 100.0]


def test_long_names_keep_both_ends():
    assert svg._shorten("abcdefgh", 8) == "abcdefgh"
    assert svg._shorten("abcdefghi", 8) == "abc…fghi"


def test_a_key_without_effect_is_flagged(tmp_path):
    table = {"plain": {}, "log": {"SOLVER.LOG_PERIOD": 5}, "other": {"MODEL.SDTPS_BETA": 0.1}}
    sweep = make(tmp_path, table, seeds=(1, 2))
    for run in sweep.runs:
        write_run(run, 40.0 + run.seed, weight=1.0 if run.variant.name == "other" else 0.0)
    results = tmp_path / "log" / "seed1" / "metrics.jsonl"
    results.write_text(results.read_text().replace('"samples_per_s": 51', '"samples_per_s": 77'))  # times may differ
    summary = write_report(sweep)
    assert variant(summary, "plain")["identical_to"] == [{"name": "log", "keys": ["SOLVER.LOG_PERIOD"]}]
    assert variant(summary, "other")["identical_to"] == [], "equal figures, other weights"
    assert any("SOLVER.LOG_PERIOD had no effect" in warning for warning in summary["warnings"])
    assert "no effect: same as log" in (tmp_path / "report.html").read_text()
    assert "<br>no effect: same as log" in (tmp_path / "report.md").read_text()


def test_one_seed_says_so(tmp_path):
    sweep = make(tmp_path, seeds=(1,))
    for run in sweep.runs:
        write_run(run, SCORES[run.variant.name][1])
    summary = write_report(sweep)
    cell = variant(summary, "full")["features"]["headline"]["last"]["mAP"]
    assert cell["std"] is None and cell["difference"]["low"] is None
    assert "One seed: there is no interval" in (tmp_path / "report.html").read_text()
    assert "one seed: no interval, nothing can be said" in (tmp_path / "report.md").read_text()


def test_runs_that_are_not_finished_are_named_and_in_no_figure(tmp_path):
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
    assert [variant(summary, name)["n"] for name in ("plain", "full", "noisy")] == [2, 1, 2]
    said = "\n".join(summary["warnings"])
    assert "full/seed1 is failed: exit code 2: no | weights (epoch 2 of 20)" in said
    assert "1 of 9 runs is not started: noisy/seed1" in said
    assert "plain/seed2 is incomplete: at epoch 2 of 20" in said
    assert "full/seed2 is other configuration: the folder holds a run with SOLVER.MAX_EPOCHS 2 instead of 20" in said
    pair = variant(summary, "noisy")["features"]["headline"]["last"]["mAP"]["difference"]
    assert list(pair["by_seed"]) == ["3"], "the only seed that both have"
    assert "no \\| weights" in (tmp_path / "report.md").read_text()


def test_a_report_of_nothing_and_without_scipy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stats, "scipy_stats", None)
    monkeypatch.setattr("tools.ablate.summary.scipy_stats", None)
    make(tmp_path)
    assert main(["--report_only", "--output", str(tmp_path)]) == 1
    assert "no variant beside the reference has a finished run" in capsys.readouterr().out
    sweep = make(tmp_path)
    for i, run in enumerate(sweep.runs):
        write_run(run, SCORES[run.variant.name][run.seed], weight=float(i))
    assert main(["--report_only", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "scipy is not installed" in printed and "+5.50 (no interval without scipy)" in printed
    assert "47.50 ± 2.50" in (tmp_path / "report.md").read_text()
