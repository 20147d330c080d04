"""Test the paired statistics against textbook formulas, published tables and direct integration."""

import math

import pytest
from scipy import integrate, stats

from tools.ablate.stats import Difference, holm, mean_std, paired_difference, paired_power, seeds_needed, verdict


def test_mean_and_sample_standard_deviation():
    assert mean_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))  # (4 + 1 + 9) / 2
    assert mean_std([5.0]) == (5.0, None)


def test_a_paired_comparison_worked_by_hand():
    """The differences are 1, 2, 3: mean 2, std 1, t = 2 sqrt(3) with 2 degrees of freedom, whose quantile is 4.3027.

    With 2 degrees of freedom the distribution function is 1/2 + t / (2 sqrt(2 + t^2)), so p = 1 - t / sqrt(2 + t^2).
    """
    pair = paired_difference({1: 11.0, 2: 22.0, 3: 33.0, 9: 0.0}, {3: 30.0, 2: 20.0, 1: 10.0, 4: 0.0})
    t = 2 * math.sqrt(3)
    assert pair.by_seed == {1: 1.0, 2: 2.0, 3: 3.0}
    assert (pair.mean, pair.std) == (2.0, 1.0)
    assert pair.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert pair.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert pair.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_what_cannot_be_tested_is_not():
    assert paired_difference({1: 1.0}, {2: 1.0}) is None
    one = paired_difference({1: 3.0}, {1: 1.0})
    assert (one.mean, one.std, one.low, one.p) == (2.0, None, None, None)
    constant = paired_difference({1: 3.0, 2: 4.0}, {1: 1.0, 2: 2.0})
    assert (constant.mean, constant.std, constant.p) == (2.0, 0.0, None)
    rounded = paired_difference({1: 0.3, 2: 0.7}, {1: 0.2, 2: 0.6})  # equal but for the last bits
    assert rounded.low is None and rounded.p is None
    assert paired_difference({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}).p is None


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_equals_published_tables(effect, pairs):
    """G*Power gives these values for a two-sided paired t-test with alpha 0.05 and power 0.80."""
    assert seeds_needed(effect, 1.0) == pairs
    assert seeds_needed(-3 * effect, 3.0) == pairs


@pytest.mark.parametrize(("n", "effect"), [(2, 5.0), (3, 1.0), (10, 0.7), (40, 0.4)])
def test_power_equals_an_integral_over_the_spread(n, effect):
    """Check without the noncentral t: for a given sample spread the mean is normal; integrate over that spread."""
    critical = stats.t.ppf(0.975, n - 1)

    def rejected(variance):
        bound, shift = critical * math.sqrt(variance / (n - 1)), effect * math.sqrt(n)
        return (stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)) * stats.chi2.pdf(variance, n - 1)

    expected = sum(integrate.quad(rejected, a, b, limit=200)[0] for a, b in ((0, 1e-3), (1e-3, 5), (5, 200)))
    assert paired_power(n, effect) == pytest.approx(expected, abs=1e-4)


def test_seeds_needed_at_the_ends():
    assert seeds_needed(1.0, 1e-3) == 2
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.05, 1.0) is None  # 3142 pairs, more than anyone trains
    assert seeds_needed(0.1, 1.0) == 787
    assert paired_power(787, 0.1) >= 0.8 > paired_power(786, 0.1)


def test_holm_by_hand():
    """The steps are 0.01 x 4, then 0.02 x 3 = 0.06, then 0.03 x 2 = 0.06 (not below the one before), then 0.9 x 1."""
    adjusted = holm({"d": 0.9, "a": 0.01, "c": 0.03, "b": 0.02})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.9})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def difference(low, high, *, seeds=3):
    middle = (low + high) / 2
    return Difference(dict.fromkeys(range(seeds), middle or 1.0), middle, 1.0, low, high, 0.04, 9)


@pytest.mark.parametrize(
    ("pair", "p_holm", "code", "words"),
    [
        (difference(-1, 2), 0.5, "indistinguishable", "not distinguishable with 3 seeds"),
        (difference(0, 2), 0.05, "indistinguishable", "not distinguishable with 3 seeds"),
        (difference(1, 2), 0.01, "higher", "higher with 3 seeds"),
        (difference(-2, -1, seeds=5), 0.01, "lower", "lower with 5 seeds"),
        (difference(1, 2), 0.08, "uncorrected", "higher with 3 seeds taken alone, not after Holm's correction"),
        (Difference({1: 2.0}, 2.0, None), None, "untested", "one seed: no interval, nothing can be said"),
        (Difference({1: 2.0, 2: 2.0}, 2.0, 0.0), None, "untested", "the same difference in 2 seeds: no test"),
        (Difference({1: 0.0, 2: 0.0}, 0.0, 0.0), None, "equal", "equal to the last digit in 2 seeds"),
        (None, None, "missing", "no seed in common"),
    ],
)
def test_verdicts(pair, p_holm, code, words):
    assert verdict(pair, p_holm) == (code, words)
