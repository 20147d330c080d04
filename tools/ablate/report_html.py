"""The report as one HTML file: no script, no network, light and dark, fit to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tools.ablate import svg, words
from tools.ablate.charts import curve_chart, differences_chart, series_colours
from tools.ablate.report_md import feature_name, features
from tools.ablate.summary import HEADLINE, METRICS, ROWS

Summary = Mapping[str, Any]

STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def render_html(summary: Summary) -> str:
    """The whole page."""
    synthetic = words.is_synthetic(summary)
    tag = '<span class="tag">synthetic</span>' if synthetic else ""
    compared = (
        f"mAP of the headline feature after the last epoch, compared with <b>{escape(summary['reference'])}</b> "
        f"seed by seed. {summary['finished']} of {summary['asked']} runs are finished. Made {summary['made']}."
    )
    chart = differences_chart(summary)
    parts = [
        f"<h1>{escape(words.title(summary))}{tag}</h1>",
        f'<p class="soft">{compared}{f" {words.SYNTHETIC}" if synthetic else ""}</p>',
        *(f'<div class="note">{escape(warning)}</div>' for warning in summary["warnings"]),
        _conclusions(summary),
        "<h2>Result</h2>",
        f'<div class="card">{chart}</div>' if chart else "",
        _main_table(summary),
        f'<p class="soft small">best: chosen on the {escape(summary["chosen_on"])}.</p>'
        if summary["chosen_on"]
        else "",
        "<h2>Curves</h2>",
        '<div class="charts">',
        *(f'<div class="card">{curve_chart(summary, name)}</div>' for name in ("mAP", "loss")),
        "</div>",
        "<h2>What differs</h2>",
        _changes_table(summary),
        "<h2>Cost</h2>",
        _cost_table(summary),
    ]
    for feature in features(summary):
        parts += [f"<h2>All comparisons: {escape(feature_name(feature))}</h2>", _comparison_table(summary, feature)]
    parts += ["<h2>Runs</h2>", _run_table(summary), "<h2>How to read it</h2>"]
    parts += ['<ul class="small">', *(f"<li>{escape(line)}</li>" for line in words.METHODS), "</ul>"]
    parts += ["<h2>Where it comes from</h2>", _environment_table(summary)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ablation: {escape(words.title(summary))}</title>"
        f"<style>{svg.theme()}{svg.STYLE}{STYLE}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _conclusions(summary: Summary) -> str:
    rows = []
    for heading, items in words.in_short(summary):
        found = ""
        for item in items:
            name, _, finding = item.partition(": ")
            found += f"<p><b>{escape(name)}</b>{escape(finding)}</p>"
        rows.append(f"<dt>{escape(heading)}</dt><dd>{found}</dd>")
    return f'<dl class="lead">{"".join(rows)}</dl>'


def _main_table(summary: Summary) -> str:
    header = [
        ("variant", ""), ("feature", "text"), ("n", ""), ("mAP<br>last", ""), ("mAP<br>best", ""), ("R1<br>last", ""),
        ("R1<br>best", ""), ("difference in mAP,<br>last [95 %]", ""), ("p<br>(Holm)", ""), ("seeds<br>needed", ""),
        ("verdict", "text"),
    ]  # fmt: skip
    rows = []
    for variant in summary["variants"]:
        table = variant["features"].get(HEADLINE, {})
        cell = words.main_cell(variant)
        pair = (cell or {}).get("difference")
        figures = [_figure(table.get(row, {}).get(metric)) for metric in METRICS for row in ROWS]
        cells = [
            _name(summary, variant), _td(variant["headline"] or words.DASH, "text"), _td(variant["n"]), *figures,
            _td(words.difference(pair)), _td(words.p_value((pair or {}).get("p_holm"))), _td(words.needed(pair)),
            _verdict(cell, variant),
        ]  # fmt: skip
        rows.append(_row(cells, variant))
    return _table(header, rows)


def _changes_table(summary: Summary) -> str:
    header = [("variant", ""), (f"keys that differ from {escape(summary['reference'])}", "text"), ("command", "text")]
    rows = []
    for variant in summary["variants"]:
        changes = "".join(f'<code class="line">{escape(change)}</code>' for change in words.changes(variant))
        nothing = "the reference" if variant["reference"] else words.DASH
        cells = [
            _name(summary, variant),
            f'<td class="text">{changes or nothing}</td>',
            f'<td class="text"><code>{escape(variant["command"])}</code></td>',
        ]
        rows.append(_row(cells, variant))
    return _table(header, rows)


def _cost_table(summary: Summary) -> str:
    header = [(name, "") for name in ("variant", "trainable parameters", "multiply-adds", "images/s", "peak memory")]
    rows = [
        _row([_name(summary, variant), *map(_td, words.costs(variant["cost"]).values())], variant)
        for variant in summary["variants"]
    ]
    return _table(header, rows)


def _comparison_table(summary: Summary, feature: str) -> str:
    header = [
        ("variant", ""), ("n", ""), ("mean ± std", ""), ("difference [95 %]", ""), ("p", ""), ("p (Holm)", ""),
        ("seeds needed", ""), ("verdict", "text"),
    ]  # fmt: skip
    rows = []
    for metric in METRICS:
        for row in ROWS:
            rows.append(f'<tr class="group"><td colspan="{len(header)}">{metric}, {row}</td></tr>')
            for variant in summary["variants"]:
                cell = variant["features"].get(feature, {}).get(row, {}).get(metric)
                if cell:
                    pair = cell["difference"]
                    cells = [
                        _name(summary, variant), _td(cell["n"]), _figure(cell), _td(words.difference(pair)),
                        _td(words.p_value((pair or {}).get("p"))), _td(words.p_value((pair or {}).get("p_holm"))),
                        _td(words.needed(pair)), _verdict(cell, variant),
                    ]  # fmt: skip
                    rows.append(_row(cells, variant))
    return _table(header, rows)


def _run_table(summary: Summary) -> str:
    names = ("run", "mAP<br>last", "mAP<br>best", "R1<br>last", "R1<br>best", "best epoch", "status")
    rows = []
    for variant in summary["variants"]:
        for run in variant["runs"]:
            figures = [
                _td(f"{run[row][metric]:.2f}" if row in run else words.DASH) for metric in METRICS for row in ROWS
            ]
            link = f'<a href="{escape(run["folder"], quote=True)}"><code>{escape(run["folder"])}</code></a>'
            status = run["status"] + (f": {run['message']}" if run["message"] else "")
            tone = "text" if run["status"] == "finished" else "text failed"
            cells = [
                f'<td class="text">{link}</td>',
                *figures,
                _td(run.get("best_epoch", words.DASH)),
                _td(status, tone),
            ]
            rows.append(_row(cells, {"reference": False}))
    return _table([(name, "text" if name == "status" else "") for name in names], rows)


def _environment_table(summary: Summary) -> str:
    rows = []
    for name, values in [*summary["environment"].items(), ("report made", [summary["made"]])]:
        shown = "<br>".join(f"<code>{escape(value)}</code>" for value in values)
        rows.append(f'<tr><td>{escape(name)}</td><td class="text">{shown}</td></tr>')
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _table(header: Sequence[tuple[str, str]], rows: Sequence[str]) -> str:
    cells = "".join(f'<th class="{tone}">{name}</th>' if tone else f"<th>{name}</th>" for name, tone in header)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(cells: Sequence[str], variant: Mapping[str, Any]) -> str:
    tone = ' class="reference"' if variant["reference"] else ""
    return f"<tr{tone}>{''.join(cells)}</tr>"


def _td(value: Any, tone: str = "") -> str:
    return f'<td class="{tone}">{escape(str(value))}</td>' if tone else f"<td>{escape(str(value))}</td>"


def _figure(cell: Mapping[str, Any] | None) -> str:
    mean, sign, std = words.plus_minus(cell).partition(" ±")
    return f'<td>{mean}<span class="std">{sign}{std}</span></td>'


def _name(summary: Summary, variant: Mapping[str, Any]) -> str:
    colour = svg.colour(series_colours(summary)[variant["name"]])
    name = escape(variant["name"]).replace(",", ",<wbr>")  # a grid's names are long
    return f'<td class="name"><span class="dot" style="background:{colour}"></span>{name}</td>'


def _verdict(cell: Mapping[str, Any] | None, variant: Mapping[str, Any]) -> str:
    tone = "reference-word" if variant["reference"] else cell["difference"]["verdict"] if cell else "missing"
    text = f'<span class="{tone}">{escape(words.verdict(cell, reference=variant["reference"]))}</span>'
    for remark in words.no_effect(variant):
        text += f'<br><span class="no-effect">{escape(remark)}</span>'
    return f'<td class="text verdict">{text}</td>'
