"""Put metrics and conclusions into words."""

from __future__ import annotations

from collections.abc import Sequence

from tools.ablate.stats import MAX_SEEDS, Difference
from tools.ablate.summary import Comparison, Summary

HEADINGS = {
    "higher": "Higher than {}",
    "lower": "Lower than {}",
    "uncorrected": "Different from {} taken alone, but not after Holm's correction",
    "indistinguishable": "Not distinguishable from {}",
    "equal": "Equal to {}",
    "untested": "Not tested against {}",
    "missing": "Nothing to compare with {}",
}
METHODS = (
    "Metrics are in percent, as mean ± sample standard deviation (n − 1) over the seeds. The *embedding* is the "
    "descriptor that the model ranks by (TEST.FEAT).",
    "A difference is variant minus reference on the same seed, averaged over the seeds. Such a pair shares its initial "
    "weights, order of batches and augmentation as far as the variants allow. The 95 % interval and the two-sided "
    "p-value are those of the paired t-test of this one comparison.",
    "p (Holm) is adjusted over the variants, separately for each metric, descriptor and row; intervals are not "
    "adjusted. Draw conclusions from the mAP of the embedding after the last epoch. The other tables are there to be "
    "looked at, not to choose a result from.",
    "“Not distinguishable” means that the 95 % interval covers 0. It does not mean that the variants are equal.",
    "Seeds needed: the fewest pairs whose test detects the difference with 80 % power at 5 %, before Holm's "
    "correction, if the observed difference and spread are the truth (noncentral t). Both are estimates from few "
    "seeds, so this is an order of magnitude, not a promise.",
    "“last” is the model after the last epoch, “best” the epoch with the highest mAP of the embedding on the set that "
    "is named. A best epoch that was chosen on the test set is optimistic. last is compared with last, best with best.",
    "Multiply-adds are those of one sample (three images) in evaluation: layers + fused attention. Samples per second "
    "and memory are those of training while as many runs shared the machine as stated; memory is the peak of the GPU, "
    "or on a CPU that of the process.",
    "“No effect” marks variants with the same losses, metrics and weights, bit by bit, on every seed. GPU kernels "
    "that add in no fixed order can hide such a case.",
)


def plus_minus(mean: float, std: float | None, digits: int = 2) -> str:
    """Write '48.33 ± 0.71', or the mean alone for one seed."""
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def signed(value: float) -> str:
    """Write '+1.20' or '−0.30'."""
    return f"{value:+.2f}".replace("-", "−")


def difference(pair: Difference | None) -> str | None:
    """Write '+1.20 [−0.35, +2.75]', without the interval if there is none."""
    if pair is None:
        return None
    return signed(pair.mean) + ("" if pair.low is None else f" [{signed(pair.low)}, {signed(pair.high)}]")


def p_value(p: float | None) -> str | None:
    """Write a p-value with three decimals, or '< 0.001'."""
    return None if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def seeds_needed(pair: Difference | None) -> str | None:
    """Write the number of seeds that would resolve a difference."""
    if pair is None or pair.p is None:
        return None
    return f"> {MAX_SEEDS}" if pair.seeds_needed is None else str(pair.seeds_needed)


def conclusions(summary: Summary) -> list[tuple[str, Sequence[str]]]:
    """Return a heading for each kind of verdict, and under it what is found of each variant."""
    reference = summary.sweep.reference
    found = [c for v in summary.sweep.variants if v.name != reference and (c := summary.find(v.name))]
    said = []
    for code, heading in HEADINGS.items():
        if items := [f"{c.variant}: {_finding(c)}" for c in found if c.verdict == code]:
            said.append((heading.format(reference), items))
    return said or [("Nothing to compare", ["no variant except the reference has a finished run"])]


def _finding(comparison: Comparison) -> str:
    pair = comparison.difference
    if pair is None:
        return comparison.words
    if pair.p is None:
        return f"{difference(pair)} ({comparison.words})"
    p = p_value(comparison.p_holm)
    resolve = f"; about {seeds_needed(pair)} seeds to resolve it" if comparison.verdict == "indistinguishable" else ""
    return f"{difference(pair)}, {len(pair.by_seed)} seeds, p (Holm) {p if p[0] == '<' else f'= {p}'}{resolve}"
