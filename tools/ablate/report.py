"""All files of a report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tools.ablate.charts import curve_chart, differences_chart
from tools.ablate.plan import Sweep
from tools.ablate.report_html import render_html
from tools.ablate.report_md import render_markdown
from tools.ablate.summary import summarize

REPORT = "report"


def write_report(sweep: Sweep) -> dict[str, Any]:
    """Write report.json, report.html, report.md and the pictures that the latter shows; returns the summary."""
    summary = json.loads(json.dumps(summarize(sweep)))  # what is shown is what the file holds
    pictures = {
        "differences.svg": differences_chart(summary, standalone=True),
        "curves.svg": curve_chart(summary, "mAP", standalone=True),
    }
    shown = [name for name, picture in pictures.items() if picture]
    files = {name: pictures[name] for name in shown} | {
        f"{REPORT}.json": json.dumps(summary, indent=1) + "\n",
        f"{REPORT}.html": render_html(summary),
        f"{REPORT}.md": render_markdown(summary, shown),
    }
    for name, text in files.items():
        temporary = Path(sweep.folder) / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, Path(sweep.folder) / name)
    return summary
