"""Compute means and paired differences by seed, and say what they allow us to conclude.

With few seeds the normal approximation is badly wrong (1.96 instead of 4.30 for three seeds). Everything here is exact
under normality: Student's t for the interval and the test, the noncentral t for the number of seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA, POWER = 0.05, 0.8
MAX_SEEDS = 1000
"""The number of seeds is not worked out where it exceeds this one."""


@dataclass(frozen=True)
class Difference:
    """A Difference is a variant minus the reference, seed by seed."""

    by_seed: Mapping[int, float]
    mean: float
    std: float | None
    """Is the sample standard deviation of the differences (n - 1), or None for one seed."""
    low: float | None = None
    high: float | None = None
    """low and high are the ends of the 95 % interval of the mean."""
    p: float | None = None
    seeds_needed: int | None = None
    """Is the number of seeds that show the mean with 80 % power at 5 %, or None if unknown or above MAX_SEEDS."""


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n - 1), which is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare two variants on the seeds that both have; return None if there are none.

    The interval and the two-sided p-value are those of the paired t-test. They do not exist for one seed, nor if all
    differences are equal, because their spread is then unknown, not zero.
    """
    by_seed = {seed: values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())}
    if not by_seed:
        return None
    mean, std = mean_std([*by_seed.values()])
    if std is None or std <= 1e-12 * max(map(abs, by_seed.values())):
        return Difference(by_seed, mean, std)
    test = stats.ttest_rel([values[seed] for seed in by_seed], [reference[seed] for seed in by_seed])
    low, high = test.confidence_interval(1 - ALPHA)
    return Difference(by_seed, mean, std, float(low), float(high), float(test.pvalue), seeds_needed(mean, std))


def paired_power(n: ArrayLike, effect: float) -> np.ndarray:
    """Return the probability that the two-sided paired t-test with `n` pairs detects a true difference.

    The statistic is then noncentral t with n - 1 degrees of freedom and noncentrality effect * sqrt(n).

    Args:
        n: numbers of pairs, at least 2.
        effect: the true mean difference in standard deviations of the differences.
    """
    n = np.asarray(n)
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    truth = stats.nct(n - 1, abs(effect) * np.sqrt(n))
    return truth.sf(critical) + truth.cdf(-critical)


def seeds_needed(difference: float, std: float) -> int | None:
    """Return the fewest pairs that detect `difference` with POWER, if both are the truth; None above MAX_SEEDS."""
    n = np.arange(2, MAX_SEEDS + 1)
    enough = n[paired_power(n, difference / std) >= POWER]
    return int(enough[0]) if enough.size else None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values by Holm's step-down method, which bounds the chance of any false finding among them."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def verdict(difference: Difference | None, p_holm: float | None) -> tuple[str, str]:
    """Return what a comparison allows us to say, as a code for programs and in words for people."""
    if difference is None:
        return "missing", "no seed in common"
    n = len(difference.by_seed)
    seeds = f"{n} seed{'s' if n > 1 else ''}"
    if n == 1:
        return "untested", "one seed: no interval, nothing can be said"
    if not any(difference.by_seed.values()):
        return "equal", f"equal to the last digit in {seeds}"
    if difference.low is None or difference.high is None:
        return "untested", f"the same difference in {seeds}: no test"
    if difference.low <= 0 <= difference.high:
        return "indistinguishable", f"not distinguishable with {seeds}"
    way = "higher" if difference.mean > 0 else "lower"
    if p_holm is not None and p_holm >= ALPHA:
        return "uncorrected", f"{way} with {seeds} taken alone, not after Holm's correction"
    return way, f"{way} with {seeds}"
