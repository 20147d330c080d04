"""Write a report: report.md with its pictures, and the numbers behind them in report.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tools.ablate import words
from tools.ablate.charts import draw_curves, draw_differences
from tools.ablate.plan import Sweep
from tools.ablate.process import now
from tools.ablate.summary import Summary, summarize
from tools.ablate.tables import Table, costs, environment, other_tables, result_table
from utils.files import atomic_write

REPORT = "report.md"
PICTURES = {"differences.svg": draw_differences, "curves.svg": draw_curves}


def write_report(sweep: Sweep) -> Summary:
    """Write report.md, report.json and the pictures into the folder of a sweep."""
    summary = summarize(sweep)
    pictures = [name for name, draw in PICTURES.items() if draw(summary, sweep.folder / name)]
    for name, text in ((REPORT, render_markdown(summary, pictures)), ("report.json", render_json(summary))):
        with atomic_write(sweep.folder / name) as file:
            file.write(text)
    return summary


def render_markdown(summary: Summary, pictures: Sequence[str] = ()) -> str:
    """Write the whole report as Markdown, which shows the `pictures` beside it."""
    sweep = summary.sweep
    data_set = sweep.variants[0].config["DATASETS.NAMES"]
    seeds = f"{len(sweep.seeds)} seed{'s' if len(sweep.seeds) > 1 else ''}"
    blocks = [f"# Ablation: {len(sweep.variants)} variants × {seeds} on {data_set}"]
    if data_set.lower() == "synthetic":
        blocks.append("*The data are synthetic: the metrics compare variants and say nothing about real persons.*")
    blocks += [f"> **Note** {_escape(warning)}" for warning in summary.warnings]
    blocks.append(
        f"The mAP of the embedding after the last epoch is compared with `{sweep.reference}`. "
        f"{len(summary.finished())} of {len(summary.records)} runs are finished."
    )
    found = words.conclusions(summary)
    blocks.append("\n".join(f"- **{heading}**: {_escape('; '.join(items))}" for heading, items in found))
    blocks += _section(result_table(summary))
    if chosen_on := _sets_of_best(summary):
        blocks.append(f"The best epoch was chosen on the {chosen_on}.")
    blocks += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    for table in other_tables(summary):
        blocks += _section(table)
    blocks += ["## How to read it", "\n".join(f"- {line}" for line in words.METHODS)]
    origin = [[name, [f"`{value}`" for value in values]] for name, values in environment(summary).items()]
    blocks += _section(Table("Where it comes from", ["", ""], [*origin, ["report made", now()]]))
    return "\n\n".join(blocks) + "\n"


def _section(table: Table) -> list[str]:
    return [f"## {table.title}", table.markdown()]


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _sets_of_best(summary: Summary) -> str:
    """Return the set on which the best epoch was chosen, as the rows of results.json name it."""
    names = {record.rows["best"]["name"] for record in summary.finished() if "best" in record.rows}
    return " and ".join(sorted({name.partition("chosen on the ")[2].rstrip(")") for name in names}))


def render_json(summary: Summary) -> str:
    """Write the statistics as JSON, one comparison per line."""
    content = {
        "reference": summary.sweep.reference,
        "seeds": summary.sweep.seeds,
        "finished": len(summary.finished()),
        "asked": len(summary.records),
        "warnings": summary.warnings,
        **environment(summary),
        "costs": costs(summary),
        "comparisons": summary.comparisons,
    }
    lines = []
    for name, value in content.items():
        rows = ",\n  ".join(json.dumps(row, default=vars) for row in value) if name in ("costs", "comparisons") else ""
        lines.append(f'"{name}": ' + (f"[\n  {rows}\n ]" if rows else json.dumps(value)))
    return "{\n " + ",\n ".join(lines) + "\n}\n"
