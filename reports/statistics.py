"""Tests and intervals: pure functions on numbers.

Across datasets the dataset is the unit; within a dataset the test image is. Rules and their reasons are printed on the
report (`templates/_rules.md.jinja`). Sources: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets,
JMLR 2006; Benavoli et al., Should We Really Use Post-Hoc Tests Based on Mean-Ranks?, JMLR 2016; Kerby, The Simple
Difference Formula, Comprehensive Psychology 2014 (rank-biserial correlation); Phipson and Smyth, Permutation P-values
Should Never Be Zero, SAGMB 2010.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ALPHA = 0.05
"""Level of every family of tests."""

CONFIDENCE = 0.95
"""Level of every interval."""

DECIMALS = 6
"""Differences in points are rounded to this before they are ranked: 0.1 + 0.2 and 0.3 must tie."""

Verdict = Literal["better", "worse", "undecided", "n too small", "missing"]


class Tested(NamedTuple):
    """A test's statistic and its two-sided p; NaN where there is nothing to test."""

    statistic: float
    p: float


class Interval(NamedTuple):
    """Bounds of a 95 % interval; NaN where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(math.nan, math.nan)


def generator(*cell: object) -> np.random.Generator:
    """Random numbers that belong to a cell: the same for the same names, whatever is computed before or beside."""
    digest = hashlib.sha256("/".join(map(str, cell)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def smallest_p(n: int) -> float:
    """Smallest two-sided p of a signed-rank or sign-flip test on n pairs: both of 2^n sign patterns, 2 / 2^n."""
    return min(1.0, 2.0 * 0.5**n)


def units_needed(family_size: int) -> int:
    """Smallest n at which a perfect result survives Holm's first step among `family_size` comparisons."""
    n = 1
    while family_size * smallest_p(n) > ALPHA:
        n += 1
    return n


def rounded(differences: ArrayLike) -> NDArray[np.float64]:
    """Differences in points, rounded so that equal ones tie."""
    points: NDArray[np.float64] = np.asarray(differences, dtype=np.float64)
    return points.round(DECIMALS)


def friedman_iman_davenport(scores: ArrayLike) -> Tested:
    """Do k methods differ over n datasets? Friedman's ranks with the F statistic of Iman and Davenport.

    Args:
        scores: (n datasets, k methods) without NaN.

    Returns:
        F with k - 1 and (k - 1)(n - 1) degrees of freedom, and its p; NaN for k < 3, n < 2 or when all are tied. When
        all datasets rank the methods alike, F is infinite and p is the chance of that, (1 / orders)^(n - 1), not 0.

    Source: Iman and Davenport 1980, as in Demsar 2006, section 3.2.2.
    """
    table = rounded(scores)
    nothing = Tested(math.nan, math.nan)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        return nothing
    if np.isnan(table).any():
        raise ValueError("NaN among the scores: drop incomplete datasets first")
    n, k = table.shape
    if (table == table[:, :1]).all():
        return nothing
    chi_square = float(stats.friedmanchisquare(*table.T).statistic)
    rest = n * (k - 1) - chi_square
    if rest < 1e-9:
        tied = np.unique(table[0], return_counts=True)[1]
        orders = math.factorial(k) / math.prod(math.factorial(int(count)) for count in tied)
        return Tested(math.inf, orders ** -(n - 1.0))
    f = (n - 1) * chi_square / rest
    return Tested(f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))))


def wilcoxon_control(differences: ArrayLike) -> Tested:
    """Wilcoxon signed-rank test of paired differences (points), two-sided, zeros by Pratt's rule.

    `method="auto"` enumerates where ties make the tabulated distribution wrong; "exact" does not. All zero: p = 1.
    Nothing: NaN.
    """
    d = rounded(differences)
    if d.size == 0:
        return Tested(math.nan, math.nan)
    if not d.any():
        return Tested(0.0, 1.0)
    result = stats.wilcoxon(d, zero_method="pratt", method="auto")
    return Tested(float(result.statistic), float(result.pvalue))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: (R+ - R-) / (R+ + R-), from -1 to 1, zeros by Pratt's rule."""
    d = rounded(differences)
    if d.size == 0:
        return math.nan
    ranks = stats.rankdata(np.abs(d))
    favourable, unfavourable = float(ranks[d > 0].sum()), float(ranks[d < 0].sum())
    total = favourable + unfavourable
    return (favourable - unfavourable) / total if total else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction within one family; NaN (nothing to test) stays NaN and does not count.

    As `statsmodels.stats.multitest.multipletests(method="holm")` without NaN, which counts them, and without its
    garbage collection on every call, which would be most of the time of `compare`.
    """
    corrected = [math.nan] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = largest
    return corrected


def verdict(p_holm: float, direction: float, smallest: float, family_size: int) -> Verdict:
    """What may be said of one comparison.

    Args:
        p_holm: corrected p; NaN if nothing was tested.
        direction: positive where the method is above the control.
        smallest: the smallest p that the test can give here.
        family_size: number of comparisons in the family.

    Returns:
        "n too small" when not even a perfect result would survive the correction, whatever p is.
    """
    if math.isnan(p_holm):
        return "missing"
    if family_size * smallest > ALPHA:
        return "n too small"
    if p_holm >= ALPHA or direction == 0:
        return "undecided"
    return "better" if direction > 0 else "worse"


def bca_interval(differences: ArrayLike, resamples: int, random: np.random.Generator) -> Interval:
    """BCa bootstrap interval of the mean over datasets; approximate, since it under-covers at a dozen datasets.

    None below three datasets or for constant differences: a width of zero would claim certainty.
    """
    d = rounded(differences)
    if d.size < 3 or (d == d[0]).all():
        return NO_INTERVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (d,), np.mean, n_resamples=resamples, confidence_level=CONFIDENCE, method="BCa", rng=random
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return Interval(low, high) if math.isfinite(low) and math.isfinite(high) else NO_INTERVAL


def percentile_interval(differences: NDArray[np.int64], resamples: int, random: np.random.Generator) -> Interval:
    """Percentile bootstrap interval of the mean over images, in the units of `differences`.

    Args:
        differences: (images,) whole numbers: seeds at which the method is right less those at which the control is.
        resamples: number of bootstrap samples.
        random: the cell's generator.

    A resample of the images is drawn as the counts of the few distinct differences (multinomial): the same
    distribution as drawing images one by one, a thousand times cheaper.
    """
    n = differences.size
    if n == 0:
        return NO_INTERVAL
    values, counts = np.unique(differences, return_counts=True)
    means = random.multinomial(n, counts / n, size=resamples) @ values / n
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def sign_flip(differences: NDArray[np.int64], resamples: int, random: np.random.Generator) -> Tested:
    """Sign-flip permutation test of a mean difference of zero over images, two-sided.

    Args:
        differences: (images,) whole numbers, so that ties with the observed sum are exact.
        resamples: number of random sign patterns.
        random: the cell's generator.

    Returns:
        The mean, and p = (extreme patterns + 1) / (resamples + 1), which is never 0 (Phipson and Smyth 2010).

    Flipping k images of equal size v at random gives v (2 Binomial(k, 1/2) - k), so one draw per distinct size serves.
    """
    if differences.size == 0:
        return Tested(math.nan, math.nan)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if sizes.size == 0:
        return Tested(0.0, 1.0)
    kept = random.binomial(counts, 0.5, size=(resamples, sizes.size))
    totals = (2 * kept - counts) @ sizes
    extreme = int((np.abs(totals) >= abs(int(differences.sum()))).sum())
    return Tested(float(differences.mean()), (extreme + 1) / (resamples + 1))


def mcnemar(only_method: int, only_control: int) -> float:
    """Exact McNemar p of one seed: images that only one of two methods gets right; 1 if there are none."""
    discordant = only_method + only_control
    return float(stats.binomtest(only_method, discordant, 0.5).pvalue) if discordant else 1.0
