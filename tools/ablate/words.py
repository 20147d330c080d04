"""Figures and conclusions in words, the same in the Markdown and in the HTML report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.ablate.stats import MAX_SEEDS

DASH = "–"
METHODS = (
    "Figures are percent, mean ± sample standard deviation (n − 1) over the seeds.",
    "A difference is variant minus reference on the same seed, then averaged: the pairs share initial weights, order "
    "of batches and augmentation as far as the variants allow. Its 95 % interval and two-sided p-value are those of "
    "the paired t-test of this one comparison.",
    "p (Holm) is adjusted over the variants, separately for each metric, feature and row; intervals are not adjusted. "
    "The comparison to go by is mAP of the headline feature after the last epoch; the other tables are there to be "
    "looked at, not to be chosen from.",
    "“Not distinguishable” means that the 95 % interval covers 0. It does not mean that the variants are equal.",
    "Seeds needed: the fewest pairs whose test sees the difference with 80 % power at 5 %, before Holm, were the "
    "observed difference and spread the truth (noncentral t). Both are estimates from few seeds: an order of "
    "magnitude, not a promise.",
    "“last” is the model after the last epoch, “best” the epoch with the highest mAP of the headline feature on the "
    "set named. A best chosen on the test set is optimistic; last is compared with last, best with best, never across.",
    "Multiply-adds are of one triplet (three images) in evaluation: layers + fused attention. Images (triplets) per "
    "second and memory are those of training, while as many runs shared the machine as stated; memory is the GPU's "
    "peak, on a CPU that of the process.",
    "“No effect” marks rows that ended in the same losses, figures and weights, bit by bit, on every seed. On a GPU, "
    "kernels that add in no fixed order can hide such a case.",
)


def plus_minus(cell: Mapping[str, Any] | None, digits: int = 2) -> str:
    """'48.33 ± 0.71'; the mean alone for one seed."""
    if not cell:
        return DASH
    return f"{cell['mean']:.{digits}f}" + ("" if cell["std"] is None else f" ± {cell['std']:.{digits}f}")


def signed(value: float, digits: int = 2) -> str:
    """'+1.20' or '−0.30'."""
    return f"{value:+.{digits}f}".replace("-", "−")


def difference(pair: Mapping[str, Any] | None) -> str:
    """'+1.20 [−0.35, +2.75]'; without the interval where there is none."""
    if not pair or "mean" not in pair:
        return DASH
    interval = "" if pair["low"] is None else f" [{signed(pair['low'])}, {signed(pair['high'])}]"
    return signed(pair["mean"]) + interval


def p_value(p: float | None) -> str:
    """Three decimals, or '< 0.001'."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def needed(pair: Mapping[str, Any] | None) -> str:
    """Seeds that the seen difference takes."""
    if not pair or pair.get("p") is None:
        return DASH
    return f"> {MAX_SEEDS}" if pair["seeds_needed"] is None else str(pair["seeds_needed"])


def no_effect(variant: Mapping[str, Any]) -> list[str]:
    """A remark for every variant that ended bit by bit the same."""
    return [f"no effect: same as {other['name']}" for other in variant["identical_to"]]


def verdict(cell: Mapping[str, Any] | None, *, reference: bool) -> str:
    """What may be said of a row."""
    if reference:
        return "reference"
    return cell["difference"]["words"] if cell else "no finished run"


def costs(cost: Mapping[str, Any]) -> dict[str, str]:
    """Parameters, multiply-adds, speed and memory, ready to print."""
    if not cost:
        return dict.fromkeys(("parameters", "multiply-adds", "images/s", "memory"), DASH)
    return {
        "parameters": f"{cost['trainable_params'] / 1e6:.3f} M",
        "multiply-adds": f"{cost['layer_macs'] / 1e9:.3f} + {cost['attention_macs'] / 1e9:.3f} G",
        "images/s": plus_minus(cost["samples_per_s"], 1),
        "memory": f"{cost['peak_memory_mib']['mean']:,.0f} MiB" if cost["peak_memory_mib"] else DASH,
    }


def changes(variant: Mapping[str, Any]) -> list[str]:
    """'MODEL.USE_SDTPS: False → True' for each key that differs from the reference."""
    return [f"{key}: {was} → {value}" for key, (was, value) in variant["changes"].items()]


def main_cell(variant: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures that conclusions go by: mAP of the headline feature after the last epoch."""
    return variant["features"].get("headline", {}).get("last", {}).get("mAP")


def title(summary: Mapping[str, Any]) -> str:
    """What was compared on what."""
    count, seeds = len(summary["variants"]), len(summary["seeds"])
    return f"{count} variants × {seeds} seed{'s' if seeds > 1 else ''} on {summary['data_set']}"


def is_synthetic(summary: Mapping[str, Any]) -> bool:
    """Whether the figures are of generated images."""
    return summary["data_set"].lower() == "synthetic"


SYNTHETIC = "Synthetic data: the figures compare variants of a method, they say nothing about real persons."


def in_short(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The conclusions: a heading for each kind of verdict, and what is said of each variant under it."""
    reference = summary["reference"]
    cells = {variant["name"]: main_cell(variant) for variant in summary["variants"] if not variant["reference"]}
    pairs = {name: cell["difference"] for name, cell in cells.items() if cell}
    headings = {
        "higher": f"Higher than {reference}",
        "lower": f"Lower than {reference}",
        "uncorrected": f"Different from {reference} taken alone, not after Holm's correction",
        "indistinguishable": f"Not distinguishable from {reference}",
        "equal": f"Equal to {reference}",
        "untested": f"Not tested against {reference}",
        "missing": "Nothing to compare",
    }
    said = []
    for code, heading in headings.items():
        items = [f"{name}: {_finding(pair)}" for name, pair in pairs.items() if pair["verdict"] == code]
        if items:
            said.append((heading, items))
    return said or [("Nothing to compare", ["no variant beside the reference has a finished run"])]


def _finding(pair: Mapping[str, Any]) -> str:
    """One comparison in a line."""
    if "mean" not in pair:
        return pair["words"]
    if pair["p"] is None:
        return f"{difference(pair)} ({pair['words']})"
    resolve = f"; about {needed(pair)} seeds to resolve it" if pair["verdict"] == "indistinguishable" else ""
    p = p_value(pair["p_holm"])
    return f"{difference(pair)}, {pair['n']} seeds, p (Holm) {p if p[0] == '<' else f'= {p}'}{resolve}"
