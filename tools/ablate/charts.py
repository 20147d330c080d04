"""The charts of a report, from its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.ablate import svg, words


def series_colours(summary: Mapping[str, Any]) -> dict[str, int]:
    """A number for each variant; the reference is 0."""
    others = [variant["name"] for variant in summary["variants"] if not variant["reference"]]
    return {summary["reference"]: 0} | {name: i for i, name in enumerate(others, 1)}


def differences_chart(summary: Mapping[str, Any], *, standalone: bool = False) -> str:
    """Every variant's difference to the reference: mAP of the headline feature after the last epoch."""
    rows = []
    for variant in summary["variants"]:
        pair = (words.main_cell(variant) or {}).get("difference")
        if pair and "mean" in pair:
            points, label = list(pair["by_seed"].values()), words.difference(pair)
            mean, low, high, verdict = (pair[key] for key in ("mean", "low", "high", "verdict"))
            rows.append(svg.Interval(variant["name"], mean, low, high, points, verdict, label))
    title = f"mAP minus that of {summary['reference']}, same seed, last epoch: mean, 95 % interval, single seeds"
    return svg.intervals(rows, title=title, standalone=standalone) if rows else ""


def curve_chart(summary: Mapping[str, Any], name: str, *, standalone: bool = False) -> str:
    """'mAP' or 'loss' by epoch, the variants over each other, the reference at the bottom of the pile."""
    colours = series_colours(summary)
    lines = []
    for variant in sorted(summary["variants"], key=lambda v: not v["reference"]):
        curve = variant["curves"][name]
        lines.append(svg.Series(variant["name"], colours[variant["name"]], curve["epoch"], curve["mean"], curve["std"]))
    split = f" on the {summary['evaluated_on'][0]} set" if len(summary["evaluated_on"]) == 1 else ""
    title = {"mAP": f"mAP of the headline feature{split}", "loss": "Total training loss of all heads"}[name]
    return svg.curves(lines, title=f"{title}, mean ± std over seeds", standalone=standalone)
