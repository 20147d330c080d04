"""The report as Markdown, for a repository or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.ablate import words
from tools.ablate.summary import HEADLINE, METRICS, ROWS

Summary = Mapping[str, Any]


def render_markdown(summary: Summary, pictures: Sequence[str] = ()) -> str:
    """The whole report; `pictures` are files beside it."""
    blocks = [f"# Ablation: {words.title(summary)}"]
    if words.is_synthetic(summary):
        blocks.append(f"*{words.SYNTHETIC}*")
    blocks += [f"> **Note** {_text(warning)}" for warning in summary["warnings"]]
    blocks.append(
        f"mAP of the headline feature after the last epoch, compared with `{summary['reference']}`; "
        f"{summary['finished']} of {summary['asked']} runs are finished."
    )
    blocks.append(
        "\n".join(f"- **{heading}**: {_text('; '.join(items))}" for heading, items in words.in_short(summary))
    )
    blocks += ["## Result", _main_table(summary), _best_note(summary)]
    blocks += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    blocks += ["## What differs", _changes_table(summary), "## Cost", _cost_table(summary)]
    for feature in features(summary):
        blocks += [f"## All comparisons: {feature_name(feature)}", _comparison_table(summary, feature)]
    blocks += ["## Runs", _run_table(summary)]
    blocks += ["## How to read it", "\n".join(f"- {line}" for line in words.METHODS)]
    blocks += ["## Where it comes from", _environment_table(summary)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def features(summary: Summary) -> list[str]:
    """The headline and every pattern that some variant has."""
    return list(dict.fromkeys(feature for variant in summary["variants"] for feature in variant["features"]))


def feature_name(feature: str) -> str:
    """For headings."""
    return "headline feature" if feature == HEADLINE else f"feature {feature}"


def _main_table(summary: Summary) -> str:
    header = ["variant", "feature", "n", "mAP last", "mAP best", "R1 last", "R1 best", "difference in mAP, last [95 %]"]
    rows = []
    for variant in summary["variants"]:
        table = variant["features"].get(HEADLINE, {})
        figures = [words.plus_minus(table.get(row, {}).get(metric)) for metric in METRICS for row in ROWS]
        cell = words.main_cell(variant)
        pair = (cell or {}).get("difference")
        rows.append([
            f"**{variant['name']}**", variant["headline"] or words.DASH, variant["n"], *figures, words.difference(pair),
            words.p_value((pair or {}).get("p_holm")), words.needed(pair),
            "<br>".join([words.verdict(cell, reference=variant["reference"]), *words.no_effect(variant)]),
        ])  # fmt: skip
    return _table([*header, "p (Holm)", "seeds needed", "verdict"], rows)


def _best_note(summary: Summary) -> str:
    return f"best: chosen on the {summary['chosen_on']}." if summary["chosen_on"] else ""


def _changes_table(summary: Summary) -> str:
    rows = [
        [
            f"**{variant['name']}**",
            "<br>".join(words.changes(variant)) or ("the reference" if variant["reference"] else words.DASH),
            f"`{variant['command']}`",
        ]
        for variant in summary["variants"]
    ]
    return _table(["variant", f"keys that differ from {summary['reference']}", "command (and a seed)"], rows)


def _cost_table(summary: Summary) -> str:
    rows = [[f"**{variant['name']}**", *words.costs(variant["cost"]).values()] for variant in summary["variants"]]
    return _table(["variant", "trainable parameters", "multiply-adds", "images/s", "peak memory"], rows)


def _comparison_table(summary: Summary, feature: str) -> str:
    rows = []
    for metric in METRICS:
        for row in ROWS:
            for variant in summary["variants"]:
                cell = variant["features"].get(feature, {}).get(row, {}).get(metric)
                if cell:
                    pair = cell["difference"]
                    p_values = [words.p_value((pair or {}).get(key)) for key in ("p", "p_holm")]
                    rows.append([
                        metric, row, f"**{variant['name']}**", cell["n"], words.plus_minus(cell),
                        words.difference(pair), *p_values, words.needed(pair),
                        words.verdict(cell, reference=variant["reference"]),
                    ])  # fmt: skip
    header = [
        "metric",
        "row",
        "variant",
        "n",
        "mean ± std",
        "difference [95 %]",
        "p",
        "p (Holm)",
        "seeds needed",
        "verdict",
    ]
    return _table(header, rows)


def _run_table(summary: Summary) -> str:
    rows = []
    for variant in summary["variants"]:
        for run in variant["runs"]:
            figures = [f"{run[row][metric]:.2f}" if row in run else words.DASH for metric in METRICS for row in ROWS]
            status = run["status"] + (f": {run['message']}" if run["message"] else "")
            rows.append([f"`{run['folder']}`", *figures, run.get("best_epoch", words.DASH), status])
    return _table(["run", "mAP last", "mAP best", "R1 last", "R1 best", "best epoch", "status"], rows)


def _environment_table(summary: Summary) -> str:
    rows = [[name, "<br>".join(f"`{value}`" for value in values)] for name, values in summary["environment"].items()]
    return _table(["", ""], [*rows, ["report made", summary["made"]]])


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
