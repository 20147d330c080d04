"""From run folders to report.json: everything that the Markdown and HTML reports show, as plain data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.ablate.plan import Sweep, Variant, differences
from tools.ablate.process import now
from tools.ablate.records import FINISHED, MISSING, RunRecord, identical, read_run
from tools.ablate.stats import ALPHA, NO_SCIPY, POWER, holm, mean_std, paired_difference, scipy_stats, verdict
from utils.provenance import ROOT

HEADLINE = "headline"
ROWS = ("last", "best")
METRICS = ("mAP", "R1")
COSTS = ("trainable_params", "layer_macs", "attention_macs")


def summarize(sweep: Sweep) -> dict[str, Any]:
    """The whole report as data for JSON. Runs that are not finished are listed, and stay out of every figure."""
    records = [read_run(run) for run in sweep.runs]
    by_variant = {variant.name: [r for r in records if r.run.variant == variant] for variant in sweep.variants}
    finished = {name: [r for r in rows if r.status == FINISHED] for name, rows in by_variant.items()}
    results = [record.results for rows in finished.values() for record in rows]
    same = _identical_variants(sweep, finished)
    figures = _compare(finished, sweep.reference)
    reference = next(variant for variant in sweep.variants if variant.name == sweep.reference)
    variants = [
        {
            "name": variant.name,
            "reference": variant.name == sweep.reference,
            "command": _command(variant),
            "changes": differences(reference.config, variant.config),
            "headline": next((r.results["headline"] for r in finished[variant.name]), None),
            "n": len(finished[variant.name]),
            "features": figures[variant.name],
            "cost": _costs(finished[variant.name]),
            "curves": _curves(finished[variant.name]),
            "identical_to": same[variant.name],
            "runs": [_run_entry(record, sweep.folder) for record in by_variant[variant.name]],
        }
        for variant in sweep.variants
    ]
    return {
        "made": now(),
        "data_set": next((result["data_set"] for result in results), reference.config["DATASETS.NAMES"]),
        "reference": sweep.reference,
        "seeds": list(sweep.seeds),
        "evaluated_on": _unique(line["split"] for r in records for line in r.epochs if "split" in line),
        "chosen_on": _chosen_on(results),
        "finished": sum(record.status == FINISHED for record in records),
        "asked": len(records),
        "warnings": _warnings(sweep, records, same),
        "variants": variants,
        "statistics": {
            "alpha": ALPHA,
            "power": POWER,
            "test": "paired t-test by seed, two-sided",
            "correction": "Holm, over the variants, separately for each metric, feature and row",
            "scipy": None if scipy_stats is None else _version("scipy"),
        },
        "environment": _environment(sweep, records, results),
    }


def _compare(finished: Mapping[str, Sequence[RunRecord]], reference: str) -> dict[str, dict[str, Any]]:
    """{variant: {feature: {row: {metric: figures}}}}: values by seed, mean, std and the difference to the reference."""
    patterns = dict.fromkeys(
        pattern
        for records in finished.values()
        for record in records
        for entry in record.results["rows"]
        for pattern in entry["eval"]
    )
    tables: dict[str, dict[str, Any]] = {name: {} for name in finished}
    for feature in (HEADLINE, *patterns):
        for row in ROWS:
            for metric in METRICS:
                by_variant = {name: _values(records, row, feature, metric) for name, records in finished.items()}
                for name, cell in _compare_cells(by_variant, reference).items():
                    tables[name].setdefault(feature, {}).setdefault(row, {})[metric] = cell
    return tables


def _compare_cells(by_variant: Mapping[str, Mapping[int, float]], reference: str) -> dict[str, dict[str, Any]]:
    """One column of the table: the figures of every variant that has any."""
    pairs = {
        name: paired_difference(values, by_variant[reference])
        for name, values in by_variant.items()
        if name != reference and values
    }
    adjusted = holm({name: pair.p for name, pair in pairs.items() if pair is not None and pair.p is not None})
    cells: dict[str, dict[str, Any]] = {}
    for name, values in by_variant.items():
        if not values:
            continue
        mean, std = mean_std(list(values.values()))
        cells[name] = cell = {"n": len(values), "mean": mean, "std": std, "values": dict(values), "difference": None}
        if name == reference:
            continue
        pair = pairs[name]
        code, words = verdict(pair, adjusted.get(name))
        cell["difference"] = {"verdict": code, "words": words}
        if pair is not None:
            cell["difference"] |= {**vars(pair), "n": pair.n, "p_holm": adjusted.get(name)}
    return cells


def _values(records: Sequence[RunRecord], row: str, feature: str, metric: str) -> dict[int, float]:
    figures = {record.run.seed: record.figure(row, feature, metric) for record in records}
    return {seed: figure for seed, figure in figures.items() if figure is not None}


def _costs(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Size and multiply-adds (equal for all seeds), speed and memory (mean and spread over seeds)."""
    if not records:
        return {}
    costs: dict[str, Any] = {name: records[0].results["complexity"][name] for name in COSTS}
    for name in ("samples_per_s", "peak_memory_mib"):
        values = [r.results[name] for r in records if r.results.get(name) is not None]
        costs[name] = dict(zip(("mean", "std"), mean_std(values), strict=True)) if values else None
    return costs


def _curves(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, by epoch, of the headline's mAP and of the total loss."""

    def score(record: RunRecord, line: Mapping[str, Any]) -> float | None:
        return line.get("eval", {}).get(record.results["headline"], {}).get("mAP")

    def loss(_record: RunRecord, line: Mapping[str, Any]) -> float | None:
        return line.get("losses", {}).get("total")

    return {"mAP": _curve(records, score), "loss": _curve(records, loss)}


def _curve(
    records: Sequence[RunRecord], value: Callable[[RunRecord, Mapping[str, Any]], float | None]
) -> dict[str, list[Any]]:
    by_epoch: dict[int, list[float]] = {}
    for record in records:
        for line in record.epochs:
            figure = value(record, line)
            if figure is not None:
                by_epoch.setdefault(line["epoch"], []).append(figure)
    points = [(epoch, *mean_std(values)) for epoch, values in sorted(by_epoch.items()) if len(values) == len(records)]
    return {name: [point[i] for point in points] for i, name in enumerate(("epoch", "mean", "std"))}


def _identical_variants(sweep: Sweep, finished: Mapping[str, Sequence[RunRecord]]) -> dict[str, list[dict[str, Any]]]:
    """For each variant, those whose runs are the same bit by bit on every seed, with the keys that had no effect."""
    same: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in sweep.variants}
    for i, first in enumerate(sweep.variants):
        for second in sweep.variants[i + 1 :]:
            ours = {record.run.seed: record for record in finished[first.name]}
            theirs = {record.run.seed: record for record in finished[second.name]}
            seeds = ours.keys() & theirs.keys()
            if seeds and all(identical(ours[seed], theirs[seed]) for seed in sorted(seeds)):
                keys = sorted(differences(first.config, second.config))
                same[first.name].append({"name": second.name, "keys": keys})
                same[second.name].append({"name": first.name, "keys": keys})
    return same


def _warnings(sweep: Sweep, records: Sequence[RunRecord], same: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """What a reader must know before the first figure."""
    warnings = [] if scipy_stats is not None else [NO_SCIPY]
    if len(sweep.seeds) == 1:
        warnings.append("One seed: there is no interval and no test, and no difference below means anything yet.")
    for record in records:
        if record.status not in (FINISHED, MISSING):
            warnings.append(f"{record.run.name} is {record.status}: {record.message}. It is in no figure.")
    if missing := [record.run.name for record in records if record.status == MISSING]:
        verb = "is" if len(missing) == 1 else "are"
        warnings.append(f"{len(missing)} of {len(records)} runs {verb} not started: {', '.join(missing)}.")
    names = [variant.name for variant in sweep.variants]
    for name, others in same.items():
        for other in others:
            if names.index(name) < names.index(other["name"]):
                warnings.append(
                    f"{name} and {other['name']} ended bit by bit the same on every seed: "
                    f"{', '.join(other['keys'])} had no effect."
                )
    commits = {start["commit"] for record in records for start in record.state.get("starts", [])}
    if len(commits) > 1:
        warnings.append(f"The runs were made with different code: {', '.join(sorted(commits))}.")
    return warnings


def _run_entry(record: RunRecord, folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "seed": record.run.seed,
        "status": record.status,
        "message": record.message,
        "folder": os.path.relpath(record.run.folder, folder),
        "starts": len(record.state.get("starts", [])),
    }
    if record.status == FINISHED:
        entry |= {row: {metric: record.figure(row, HEADLINE, metric) for metric in METRICS} for row in ROWS}
        entry["best_epoch"] = next(r["epoch"] for r in record.results["rows"] if r["name"].startswith("best"))
    return entry


def _chosen_on(results: Sequence[Mapping[str, Any]]) -> str:
    """The set on which 'best' was chosen, from the row's own name."""
    names = {row["name"] for result in results for row in result["rows"] if row["name"].startswith("best")}
    return " and ".join(sorted({name.partition("chosen on the ")[2].rstrip(")") for name in names}))


def _environment(
    sweep: Sweep, records: Sequence[RunRecord], results: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Where the figures come from; more than one entry where the runs differ."""
    starts = [start for record in records for start in record.state.get("starts", [])]
    versions = [f"{name} {version}" for result in results for name, version in result["versions"].items()]
    return {
        "command": _unique(start["command"] for start in sweep.starts),
        "commit": _unique(start["commit"] for start in starts),
        "versions": _unique([*versions, f"scipy {_version('scipy')}" if scipy_stats is not None else "no scipy"]),
        "device": _unique(result["device"] for result in results),
        "machine": _unique(start["machine"] for start in sweep.starts),
        "threads per run": _unique(str(start["threads"]) for start in starts),
        "runs at a time": _unique(str(start["jobs"]) for start in sweep.starts),
        "epochs": _unique(str(run.max_epochs) for run in sweep.runs),
        "started": _unique(start["time"] for start in sweep.starts),
    }


def _command(variant: Variant) -> str:
    file = Path(variant.config_file)
    shown = file.resolve().relative_to(ROOT) if file.resolve().is_relative_to(ROOT) else file.name
    return f"python train_net.py --config_file {shown} {' '.join(variant.opts)}".rstrip()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
