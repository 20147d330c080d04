"""Means, paired differences and what they allow to say; p-values and intervals by scipy, which is optional.

With few seeds the normal approximation is badly wrong (three seeds: 1.96 against 4.30), so everything here is exact
under normality: Student's t for the interval and the test, the noncentral t for the number of seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

try:
    from scipy import stats as scipy_stats
except ImportError:
    scipy_stats = None

ALPHA, POWER = 0.05, 0.8
MAX_SEEDS = 1000
"""A difference that takes more seeds than this is reported as such, not counted out."""
NO_SCIPY = (
    "scipy is not installed, so there are no intervals, p-values or numbers of seeds; means and standard deviations "
    "are complete. Install it (pip install scipy), then make the report again with --report_only."
)


@dataclass(frozen=True)
class Difference:
    """A variant minus the reference, seed by seed."""

    by_seed: Mapping[int, float]
    mean: float
    std: float | None
    """Of the paired differences, with n - 1; None for one seed."""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    seeds_needed: int | None = None
    """To see the mean difference with 80 % power at 5 %; None where it cannot be told or exceeds MAX_SEEDS."""

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.by_seed)


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1), which one value does not have."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare two variants on the seeds that both have; None when there are none.

    The interval and the two-sided p-value are those of the paired t-test. Neither exists for one seed, nor when all
    differences are equal, for then their spread is unknown, not zero.
    """
    by_seed = {seed: values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())}
    if not by_seed:
        return None
    mean, std = mean_std(list(by_seed.values()))
    if scipy_stats is None or std is None or std <= 1e-12 * max(map(abs, by_seed.values()), default=0.0) or std == 0:
        return Difference(by_seed, mean, std)
    test = scipy_stats.ttest_rel([values[seed] for seed in by_seed], [reference[seed] for seed in by_seed])
    interval = test.confidence_interval(1 - ALPHA)
    return Difference(
        by_seed, mean, std, float(interval.low), float(interval.high), float(test.pvalue), seeds_needed(mean, std)
    )


def paired_power(n: int, effect: float, alpha: float = ALPHA) -> float:
    """Probability that the two-sided paired t-test with n pairs sees a true difference of `effect` standard deviations.

    Under that truth the statistic is noncentral t with n - 1 degrees of freedom and noncentrality effect * sqrt(n).
    """
    critical = scipy_stats.t.ppf(1 - alpha / 2, n - 1)
    shifted = scipy_stats.nct(n - 1, abs(effect) * math.sqrt(n))
    return float(shifted.sf(critical) + shifted.cdf(-critical))


def seeds_needed(difference: float, std: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The fewest pairs whose t-test sees `difference` at this power, were it and `std` true; None beyond MAX_SEEDS."""
    effect = abs(difference) / std
    if effect == 0 or paired_power(MAX_SEEDS, effect, alpha) < power:
        return None
    low, high = 1, MAX_SEEDS  # power grows with n: too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(middle, effect, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values, which bound the chance of any false finding among all of them."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def verdict(difference: Difference | None, p_holm: float | None) -> tuple[str, str]:
    """What a comparison allows to say: a code for programs and words for people."""
    if difference is None:
        return "missing", "no seed in common"
    n = f"{difference.n} seed{'s' if difference.n > 1 else ''}"
    if difference.n == 1:
        return "untested", "one seed: no interval, nothing can be said"
    if not any(difference.by_seed.values()):
        return "equal", f"equal to the last digit in {n}"
    if difference.low is None or difference.high is None:
        return (
            "untested",
            "no interval without scipy" if scipy_stats is None else f"the same difference in {n}: no test",
        )
    if difference.low <= 0 <= difference.high:
        return "indistinguishable", f"not distinguishable with {n}"
    way = "higher" if difference.mean > 0 else "lower"
    if p_holm is not None and p_holm >= ALPHA:
        return "uncorrected", f"{way} with {n} taken alone, not after Holm"
    return way, f"{way} with {n}"
