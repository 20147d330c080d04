"""The results of runs and evaluations: their rows, their table on the screen, and results.json."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from typing import Any

import timm
import torch

from engine.checkpoint import BEST, Checkpoint, load_model_state
from engine.evaluate import Evaluator
from engine.missing import NOTHING, parse_settings, title
from engine.train import Trainer
from modeling.complexity import Complexity
from modeling.model import ReIDModel
from utils.memory import peak_memory_mib
from utils.provenance import processor

logger = logging.getLogger(__name__)

METRICS = ("mAP", "R1", "R5", "R10", "mINP")
ROW_KEYS = ("epoch", "split", "eval", "selection")
Row = dict[str, Any]


def result_row(name: str, record: dict[str, Any]) -> Row:
    """Return a row of the result table, from the record of an evaluation."""
    return {"name": name} | {key: record[key] for key in ROW_KEYS if key in record}


def run_rows(trainer: Trainer, test: Evaluator) -> list[Row]:
    """Return the rows of a finished run: untrained, last, and best with the set that it was chosen on.

    `test` evaluates the rows missing from metrics.jsonl, where the run was scored on the validation set or was resumed
    from another folder.
    """
    records = {record["epoch"]: record for record in trainer.folder.records() if "eval" in record}
    rows = [result_row("untrained (epoch 0)", records[0])] if 0 in records else []
    model, state, chosen_on = trainer.state.model, trainer.state, trainer.evaluate.split.name
    known = records if chosen_on == test.split.name else {}
    last = known.get(state.epoch) or {"epoch": state.epoch, **test(model)}
    rows.append(result_row(f"last (epoch {state.epoch})", last))
    if state.best:
        epoch = state.best["epoch"]
        if epoch not in known:
            load_model_state(model, Checkpoint.load(trainer.folder.path / BEST).model, BEST)
        best = known.get(epoch) or {"epoch": epoch, **test(model)}
        rows.append(result_row(f"best (epoch {epoch}, chosen on the {chosen_on} set)", best))
    return rows


def setting_rows(evaluator: Evaluator, model: ReIDModel, missing: str, *, name: str) -> list[Row]:
    """Score TEST.MISS in one row called `name`, or each setting that `missing` lists, followed by their mean."""
    if not missing:
        return [result_row(name, evaluator(model))]
    settings = parse_settings(missing)
    if missing == "all":  # some settings leave nothing of data that lacks a modality everywhere
        settings = tuple(setting for setting in settings if not evaluator.num_lost(setting))
    records = evaluator.score(model, settings)
    rows = [result_row(f"{title(setting)} absent", record) for setting, record in records.items()]
    with_absent = [row for row, setting in zip(rows, settings, strict=True) if setting != NOTHING]
    if len(with_absent) > 1:
        rows.append({"name": "mean of those with any absent", "eval": mean_metrics(with_absent)})
    return rows


def mean_metrics(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the mean over rows of every metric of every descriptor."""
    return {
        descriptor: {name: sum(row["eval"][descriptor][name] for row in rows) / len(rows) for name in metrics}
        for descriptor, metrics in rows[0]["eval"].items()
    }


def run_results(trainer: Trainer, rows: list[Row], complexity: Complexity, *, data_set: str) -> dict[str, Any]:
    """Return the content of results.json."""
    device = trainer.device
    speeds = [record["samples_per_s"] for record in trainer.folder.records() if "samples_per_s" in record]
    return {
        "data_set": data_set,
        "headline": trainer.state.model.descriptor,
        "seed": trainer.options.seed,
        "rows": rows,
        "complexity": complexity.as_dict(),
        "samples_per_s": sum(speeds) / len(speeds) if speeds else None,  # None if no epoch was trained here
        "peak_memory_mib": peak_memory_mib(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
    }


def log_rows(rows: list[Row]) -> None:
    """Log the table, and where the kept patches lie if the data set knows it."""
    logger.info("\n%s", format_table(rows))
    for row in rows:
        if "kept_on_object" in row.get("selection", ()):
            logger.info("%s: %s", row["name"], describe_share(row["selection"]))


def describe_share(selection: dict[str, float]) -> str:
    """Write in a sentence what `engine.evaluate.object_share` has measured."""
    others = f"{selection['all_on_object']:.1f} % for all patches"
    if "relative_on_object" in selection:  # records of former versions do not have it
        others += (
            f", {selection['oracle_on_object']:.1f} % for the best ones; on the way from chance to these, "
            f"{selection['relative_on_object']:.2f}"
        )
    return f"{selection['kept_on_object']:.1f} % of the kept patch area covers the object ({others})."


def format_table(rows: list[Row]) -> str:
    """Arrange rows as a table, one line per row and descriptor, and a line on the queries that are left out."""
    header = ["model", "feature", *METRICS]
    lines = [header]
    for row in rows:
        for i, (descriptor, metrics) in enumerate(row["eval"].items()):
            lines.append([row["name"] if i == 0 else "", descriptor, *(f"{metrics[name]:.1f}" for name in METRICS)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * len(rendered[0])
    return "\n".join([rendered[0], rule, *rendered[1:], *_unscored(rows)])


def _unscored(rows: list[Row]) -> list[str]:
    """Return one line that counts the queries that are not scored, if there are any."""
    metrics = next(iter(rows[0]["eval"].values()))
    without, scored = int(metrics["queries_without_match"]), int(metrics["queries"])
    if not without:
        return []
    return [f"{without} of {without + scored} queries have no match in another group and are not scored."]
