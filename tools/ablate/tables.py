"""Arrange the results of a sweep in the tables of a report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.ablate import words
from tools.ablate.plan import Variant, differences
from tools.ablate.records import EMBEDDING
from tools.ablate.stats import mean_std
from tools.ablate.summary import METRICS, ROWS, Summary
from utils.provenance import ROOT

METRIC_COLUMNS = [f"{metric} {row}" for metric in METRICS for row in ROWS]


@dataclass(frozen=True)
class Table:
    """A Table is ready to be written; None in a cell is a value that does not exist, a list is several lines."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        """Write the table as Markdown, without its title."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "<br>".join(map(_cell, value)) or "–"
    return "–" if value is None else " ".join(str(value).replace("|", "\\|").split())


def result_table(summary: Summary) -> Table:
    """Return one row per variant: the metrics of the embedding and the verdict on its mAP after the last epoch."""
    rows = []
    for variant in summary.sweep.variants:
        cells = [summary.find(variant.name, row=row, metric=metric) for metric in METRICS for row in ROWS]
        name, main, pair = f"**{variant.name}**", cells[0], cells[0].difference if cells[0] else None
        used = {record.results["headline"] for record in summary.finished(variant.name)}
        remarks = [
            f"no effect: same as {first if second == variant.name else second}"
            for first, second, _ in summary.equal_pairs
            if variant.name in (first, second)
        ]
        rows.append([
            name, [*used], len(main.values) if main else 0, *(c and words.plus_minus(c.mean, c.std) for c in cells),
            words.difference(pair), words.p_value(main and main.p_holm), words.seeds_needed(pair),
            [main.words if main else "no finished run", *remarks],
        ])  # fmt: skip
    header = ["variant", EMBEDDING, "n", *METRIC_COLUMNS, "difference in mAP, last [95 %]", "p (Holm)"]
    return Table("Result", [*header, "seeds needed", "verdict"], rows)


def other_tables(summary: Summary) -> list[Table]:
    """Return every table that stands below the pictures."""
    descriptors = dict.fromkeys(comparison.descriptor for comparison in summary.comparisons)
    comparisons = [_comparison_table(summary, descriptor) for descriptor in descriptors]
    return [_changes_table(summary), _cost_table(summary), *comparisons, _run_table(summary)]


def _changes_table(summary: Summary) -> Table:
    reference = next(variant for variant in summary.sweep.variants if variant.name == summary.sweep.reference)
    rows = []
    for variant in summary.sweep.variants:
        changed = differences(reference.config, variant.config)
        keys = [f"{key}: {was} → {value}" for key, (was, value) in changed.items()]
        keys = ["the reference"] if variant == reference else keys
        rows.append([f"**{variant.name}**", keys, f"`{_command(variant)}`"])
    return Table("What differs", ["variant", f"keys that differ from {reference.name}", "command (and a seed)"], rows)


def _command(variant: Variant) -> str:
    file = Path(variant.config_file).resolve()
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
    return f"python train_net.py --config_file {shown} {' '.join(variant.opts)}".rstrip()


def costs(summary: Summary) -> list[dict[str, Any]]:
    """Return what a variant costs: sizes, which all seeds share, and the means of speed and memory over its seeds."""
    rows = []
    for variant in summary.sweep.variants:
        results = [record.results for record in summary.finished(variant.name)]
        row = {"variant": variant.name}
        for name in ("trainable_params", "layer_macs", "attention_macs"):
            row[name] = results[0]["complexity"][name] if results else None
        for name in ("samples_per_s", "peak_memory_mib"):
            values = [result[name] for result in results if result.get(name) is not None]
            row[name], row[f"{name}_std"] = mean_std(values) if values else (None, None)
        rows.append(row)
    return rows


def _cost_table(summary: Summary) -> Table:
    rows = []
    for cost in costs(summary):
        speed, memory = cost["samples_per_s"], cost["peak_memory_mib"]
        trained = cost["trainable_params"] is not None
        rows.append([
            f"**{cost['variant']}**",
            f"{cost['trainable_params'] / 1e6:.3f} M" if trained else None,
            f"{cost['layer_macs'] / 1e9:.3f} + {cost['attention_macs'] / 1e9:.3f} G" if trained else None,
            speed and words.plus_minus(speed, cost["samples_per_s_std"], 1), memory and f"{memory:,.0f} MiB",
        ])  # fmt: skip
    return Table("Cost", ["variant", "trainable parameters", "multiply-adds", "samples/s", "peak memory"], rows)


def _comparison_table(summary: Summary, descriptor: str) -> Table:
    rows = [
        [
            c.metric, c.row, f"**{c.variant}**", len(c.values), words.plus_minus(c.mean, c.std),
            words.difference(c.difference), words.p_value(c.difference and c.difference.p), words.p_value(c.p_holm),
            words.seeds_needed(c.difference), c.words,
        ]
        for c in summary.comparisons
        if c.descriptor == descriptor
    ]  # fmt: skip
    header = ["metric", "row", "variant", "n", "mean ± std", "difference [95 %]", "p", "p (Holm)", "seeds needed"]
    title = EMBEDDING if descriptor == EMBEDDING else f"descriptor {descriptor}"
    return Table(f"All comparisons: {title}", [*header, "verdict"], rows)


def _run_table(summary: Summary) -> Table:
    rows = []
    for record in summary.records:
        values = [record.metric(row, EMBEDDING, metric) for metric in METRICS for row in ROWS]
        metrics = [None if value is None else f"{value:.2f}" for value in values]
        best = record.rows.get("best", {}).get("epoch")
        status = record.status + (f": {record.message}" if record.message else "")
        folder = os.path.relpath(record.run.folder, summary.sweep.folder)
        rows.append([f"`{folder}`", *metrics, best, len(record.state.get("starts", [])), status])
    return Table("Runs", ["run", *METRIC_COLUMNS, "best epoch", "starts", "status"], rows)


def environment(summary: Summary) -> dict[str, list[str]]:
    """Return where the metrics come from, with more than one entry where the runs differ."""
    results = [record.results for record in summary.finished()]
    starts = [start for record in summary.records for start in record.state.get("starts", [])]
    versions = [f"{name} {number}" for result in results for name, number in result["versions"].items()]
    return {
        "command": _unique(start["command"] for start in summary.sweep.starts),
        "commit": _unique(start["commit"] for start in starts),
        "versions": _unique([*versions, f"scipy {version('scipy')}"]),
        "device": _unique(result["device"] for result in results),
        "machine": _unique(start["machine"] for start in summary.sweep.starts),
        "threads per run": _unique(start["threads"] for start in starts),
        "runs at a time": _unique(start["jobs"] for start in summary.sweep.starts),
        "epochs": _unique(run.max_epochs for run in summary.sweep.runs),
        "started": _unique(start["time"] for start in summary.sweep.starts),
    }


def _unique(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))
