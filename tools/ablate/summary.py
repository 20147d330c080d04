"""Collect the results of a sweep: a long table of metrics, the comparisons by seed, and warnings for the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from tools.ablate.plan import Sweep, differences
from tools.ablate.records import EMBEDDING, FINISHED, MISSING, RunRecord, identical, read_run
from tools.ablate.stats import Difference, holm, mean_std, paired_difference, verdict

METRICS, ROWS = ("mAP", "R1"), ("last", "best")


@dataclass(frozen=True)
class Comparison:
    """A Comparison sets a metric of one variant, in percent, against the same metric of the reference."""

    descriptor: str
    row: str
    metric: str
    variant: str
    values: Mapping[int, float]
    """Holds the metric by seed."""
    mean: float
    std: float | None
    difference: Difference | None
    p_holm: float | None
    verdict: str
    words: str
    """Says the verdict to people."""


@dataclass(frozen=True)
class Summary:
    """A Summary is everything that a report shows; its metrics come from finished runs alone."""

    sweep: Sweep
    records: list[RunRecord]
    """Holds one per run, ordered by variant and seed."""
    scores: pd.DataFrame
    """Has the columns variant, seed, descriptor, row, metric and value (percent)."""
    curves: pd.DataFrame
    """Has the columns variant, quantity ('mAP' or 'loss'), epoch, mean and std, for epochs that every seed has."""
    comparisons: list[Comparison]
    equal_pairs: list[tuple[str, str, list[str]]]
    """Names two variants whose runs are equal bit by bit, and the keys that had no effect."""
    warnings: list[str]

    def finished(self, variant: str | None = None) -> list[RunRecord]:
        """Return the finished runs, of one variant if it is given."""
        return [r for r in self.records if r.status == FINISHED and variant in (None, r.run.variant.name)]

    def find(
        self, variant: str, *, descriptor: str = EMBEDDING, row: str = "last", metric: str = "mAP"
    ) -> Comparison | None:
        """Return a comparison, by default the one that conclusions are drawn from; None without a finished run."""
        wanted = (variant, descriptor, row, metric)
        return next((c for c in self.comparisons if (c.variant, c.descriptor, c.row, c.metric) == wanted), None)


def summarize(sweep: Sweep) -> Summary:
    """Read and compare the runs of a sweep."""
    order = [variant.name for variant in sweep.variants]
    records = sorted(map(read_run, sweep.runs), key=lambda record: order.index(record.run.variant.name))
    finished = [record for record in records if record.status == FINISHED]
    scores, equal_pairs = _scores(finished), _equal_pairs(sweep, finished)
    return Summary(
        sweep=sweep,
        records=records,
        scores=scores,
        curves=_curves(finished),
        comparisons=_compare(scores, sweep.reference),
        equal_pairs=equal_pairs,
        warnings=_warnings(sweep, records, equal_pairs),
    )


def _scores(finished: Sequence[RunRecord]) -> pd.DataFrame:
    table = [
        (record.run.variant.name, record.run.seed, descriptor, row, metric, record.metric(row, descriptor, metric))
        for record in finished
        for descriptor in (EMBEDDING, *record.rows["last"]["eval"])
        for metric in METRICS
        for row in ROWS
    ]
    columns = ["variant", "seed", "descriptor", "row", "metric", "value"]
    return pd.DataFrame(table, columns=columns).dropna(subset="value")


def _curves(finished: Sequence[RunRecord]) -> pd.DataFrame:
    points = []
    for record in finished:
        for line in record.epochs:
            score = line.get("eval", {}).get(record.results["headline"], {}).get("mAP")
            for quantity, value in (("mAP", score), ("loss", line.get("losses", {}).get("total"))):
                points.append((record.run.variant.name, record.run.seed, quantity, line["epoch"], value))
    table = pd.DataFrame(points, columns=["variant", "seed", "quantity", "epoch", "value"]).dropna(subset="value")
    seeds = table.groupby("variant")["seed"].nunique()
    groups = table.groupby(["variant", "quantity", "epoch"])["value"]
    curves = groups.agg(["mean", "std", "count"]).reset_index()
    return curves[curves["count"] == curves["variant"].map(seeds)].drop(columns="count")


def _compare(scores: pd.DataFrame, reference: str) -> list[Comparison]:
    comparisons = []
    for key, group in scores.groupby(["descriptor", "row", "metric"], sort=False):
        by_variant = {
            variant: dict(zip(rows["seed"].tolist(), rows["value"].tolist(), strict=True))
            for variant, rows in group.groupby("variant", sort=False)
        }
        reference_values = by_variant.get(reference, {})
        others = {name: by_seed for name, by_seed in by_variant.items() if name != reference}
        pairs = {name: paired_difference(by_seed, reference_values) for name, by_seed in others.items()}
        adjusted = holm({name: pair.p for name, pair in pairs.items() if pair is not None and pair.p is not None})
        for name, by_seed in by_variant.items():
            pair, p_holm = pairs.get(name), adjusted.get(name)
            said = ("reference", "reference") if name == reference else verdict(pair, p_holm)
            comparisons.append(Comparison(*key, name, by_seed, *mean_std([*by_seed.values()]), pair, p_holm, *said))
    return comparisons


def _equal_pairs(sweep: Sweep, finished: Sequence[RunRecord]) -> list[tuple[str, str, list[str]]]:
    """Find the variants whose runs are equal on every seed that both have."""
    equal = []
    for first, second in combinations(sweep.variants, 2):
        ours, theirs = ({r.run.seed: r for r in finished if r.run.variant == variant} for variant in (first, second))
        seeds = sorted(ours.keys() & theirs.keys())
        if seeds and all(identical(ours[seed], theirs[seed]) for seed in seeds):
            equal.append((first.name, second.name, [*differences(first.config, second.config)]))
    return equal


def _warnings(
    sweep: Sweep, records: Sequence[RunRecord], equal_pairs: Sequence[tuple[str, str, list[str]]]
) -> list[str]:
    warnings = []
    if len(sweep.seeds) == 1:
        warnings.append("One seed: there is no interval and no test, and no difference below means anything yet.")
    for record in records:
        if record.status not in (FINISHED, MISSING):
            warnings.append(f"{record.run.name} is {record.status}: {record.message}. No metric includes it.")
    if missing := [record.run.name for record in records if record.status == MISSING]:
        verb = "is" if len(missing) == 1 else "are"
        warnings.append(f"{len(missing)} of {len(records)} runs {verb} not started: {', '.join(missing)}.")
    for first, second, keys in equal_pairs:
        warnings.append(f"{first} and {second} are equal bit by bit on every seed: {', '.join(keys)} had no effect.")
    commits = {start["commit"] for record in records for start in record.state.get("starts", [])}
    if len(commits) > 1:
        warnings.append(f"The runs were made with different code: {', '.join(sorted(commits))}.")
    return warnings
