"""Tests against enumeration by hand and against the measured edges of the libraries."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from reports import statistics


def enumerated_wilcoxon(differences: list[float]) -> float:
    """Two-sided Pratt p by all 2^n sign patterns of the non-zero differences."""
    d = np.round(differences, 6)
    ranks = stats.rankdata(np.abs(d))
    ranks[d == 0] = 0
    observed = abs((np.sign(d) * ranks).sum())
    ranks = ranks[d != 0]
    signs = np.array(list(itertools.product([-1, 1], repeat=len(ranks))))
    return float((np.abs(signs @ ranks) >= observed - 1e-9).mean())


def enumerated_sign_flip(differences: np.ndarray) -> float:
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    return float((np.abs(signs @ differences) >= abs(differences.sum())).mean())


@pytest.mark.parametrize(
    ("n", "p"), [(5, 0.0625), (6, 0.03125), (7, 0.015625), (8, 0.0078125), (11, 0.0009765625), (1, 1.0), (0, 1.0)]
)
def test_smallest_p(n: int, p: float) -> None:
    assert statistics.smallest_p(n) == p


@pytest.mark.parametrize(("n", "most"), [(6, 1), (7, 3), (8, 6), (9, 12), (10, 25), (11, 51)])
def test_holm_ceiling(n: int, most: int) -> None:
    assert statistics.units_needed(most) == n
    assert statistics.units_needed(most + 1) == n + 1
    perfect = statistics.wilcoxon_control(np.arange(1, n + 1)).p
    assert perfect == pytest.approx(statistics.smallest_p(n))
    survives = statistics.holm([perfect] + [1.0] * (most - 1))[0]
    assert survives <= 0.05 < statistics.holm([perfect] + [1.0] * most)[0]


def test_wilcoxon_with_ties_enumerates() -> None:
    differences = [-2.0, -1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0]
    assert enumerated_wilcoxon(differences) == 0.0390625
    assert statistics.wilcoxon_control(differences).p == 0.0390625
    # The tabulated distribution, which method="exact" uses, ignores the ties.
    assert stats.wilcoxon(differences, method="exact").pvalue == 0.037109375


@pytest.mark.parametrize("seed", range(12))
def test_wilcoxon_equals_enumeration(seed: int) -> None:
    random = np.random.default_rng(seed)
    differences = random.integers(-4, 8, size=random.integers(4, 11)).astype(float)
    if not differences.any():
        differences[0] = 1.0
    assert statistics.wilcoxon_control(differences).p == pytest.approx(enumerated_wilcoxon(differences), abs=1e-12)


def test_wilcoxon_with_zeros_uses_pratt() -> None:
    differences = [0.0, 0.0, 1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0]
    assert statistics.wilcoxon_control(differences).p == pytest.approx(enumerated_wilcoxon(differences), abs=1e-12)


def test_float_noise_does_not_break_ties() -> None:
    pairs = [(50.1, 50.0), (60.3, 60.2), (70.7, 70.6), (33.4, 33.3), (20.2, 20.1), (41.1, 41.0), (55.5, 55.6)]
    differences = [a - b for a, b in pairs]
    assert len(set(np.abs(differences))) > 1
    assert statistics.wilcoxon_control(differences).p == 0.125
    assert (np.abs(statistics.rounded(differences)) == 0.1).all()


def test_wilcoxon_edges() -> None:
    assert statistics.wilcoxon_control([0.0] * 6) == (0.0, 1.0)
    assert math.isnan(statistics.wilcoxon_control([]).p)
    assert statistics.wilcoxon_control([3.0]).p == 1.0


def test_friedman_as_demsar() -> None:
    # Demsar 2006, table 6: AUC of C4.5 with no, one or both of two parameters tuned, 14 datasets; he reports
    # chi-square 9.28 and F 3.69 with 3 and 39 degrees of freedom.
    table = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    n, k = table.shape
    # His chi-square has no correction for ties; scipy's has one, so ours lies a little above.
    plain = 12 * n / (k * (k + 1)) * ((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert (n - 1) * plain / (n * (k - 1) - plain) == pytest.approx(3.69, abs=0.01)
    ours = statistics.friedman_iman_davenport(table)
    chi_square = stats.friedmanchisquare(*table.T).statistic
    assert ours.statistic == pytest.approx((n - 1) * chi_square / (n * (k - 1) - chi_square))
    assert 3.69 < ours.statistic < 4.3
    assert ours.p == pytest.approx(stats.f.sf(ours.statistic, 3, 39))


def test_friedman_by_hand() -> None:
    # Ranks 1 2 3 / 1 2 3 / 1 3 2 / 2 1 3: column sums 5, 8, 11, chi-square 12/(4*3*4) * 210 - 3*4*4 = 4.5.
    table = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]]
    ours = statistics.friedman_iman_davenport(table)
    assert ours.statistic == pytest.approx(3 * 4.5 / (4 * 2 - 4.5))
    assert ours.p == pytest.approx(stats.f.sf(27 / 7, 2, 6))


def test_friedman_edges() -> None:
    nan = statistics.friedman_iman_davenport
    assert math.isnan(nan([[1.0, 2.0], [2.0, 1.0]]).p)  # k = 2
    assert math.isnan(nan([[1.0, 2.0, 3.0]]).p)  # n = 1
    assert math.isnan(nan([[5.0, 5.0, 5.0]] * 4).p)  # all tied
    assert math.isnan(nan(np.zeros((0, 3))).p)
    with pytest.raises(ValueError, match="NaN"):
        nan([[1.0, 2.0, math.nan], [1.0, 2.0, 3.0]])


def test_friedman_in_full_agreement_is_not_certain() -> None:
    agreed = statistics.friedman_iman_davenport([[1.0, 2.0, 3.0]] * 4)
    assert agreed.statistic == math.inf
    orders = list(itertools.permutations(range(3)))
    chance = sum(len(set(draw)) == 1 for draw in itertools.product(orders, repeat=4)) / 6**4
    assert agreed.p == pytest.approx(chance)
    # Two of three tied in every row: three orders instead of six.
    assert statistics.friedman_iman_davenport([[1.0, 2.0, 2.0]] * 4).p == pytest.approx(1 / 27)


def test_holm_drops_nan_first() -> None:
    nan = math.nan
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    corrected = statistics.holm([0.01, 0.04, 0.03, nan])
    assert corrected[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(corrected[3])
    assert statistics.holm([]) == []
    assert math.isnan(statistics.holm([nan])[0])


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).beta(0.5, 3, size=9).round(2).tolist()
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(
    ("p_holm", "direction", "n", "family", "expected"),
    [
        (0.03125, 1, 6, 1, "better"),
        (0.03125, -1, 6, 1, "worse"),
        (0.03125, 1, 6, 2, "n too small"),
        (1.0, -1, 6, 4, "n too small"),
        (0.06, 1, 8, 4, "undecided"),
        (0.05, 1, 8, 4, "undecided"),
        (0.049, 0, 8, 4, "undecided"),
        (0.05, 1, 11, 52, "n too small"),
        (0.049, 1, 11, 51, "better"),
        (math.nan, math.nan, 0, 0, "missing"),
    ],
)
def test_verdict(p_holm: float, direction: float, n: int, family: int, expected: str) -> None:
    assert statistics.verdict(p_holm, direction, statistics.smallest_p(n), family) == expected


def test_rank_biserial() -> None:
    assert statistics.rank_biserial([1, 2, 3]) == 1.0
    assert statistics.rank_biserial([-1, -2, -3]) == -1.0
    assert statistics.rank_biserial([3, -1, -2]) == 0.0
    assert statistics.rank_biserial([1, 2, -3, 4]) == pytest.approx((7 - 3) / 10)
    assert statistics.rank_biserial([0, 0]) == 0.0
    # Pratt: the zero takes rank 1 and is then left out.
    assert statistics.rank_biserial([0, 1, -2]) == pytest.approx((2 - 3) / 5)
    assert math.isnan(statistics.rank_biserial([]))


@pytest.mark.parametrize("seed", range(4))
def test_sign_flip_equals_enumeration(seed: int) -> None:
    random = np.random.default_rng(seed)
    differences = random.integers(-3, 4, size=12) + (seed % 2)
    exact = enumerated_sign_flip(differences)
    tested = statistics.sign_flip(differences, 40_000, statistics.generator("test", seed))
    assert tested.statistic == differences.mean()
    assert tested.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000) + 1 / 40_000)


def test_sign_flip_counts_itself() -> None:
    # 2^-59 has no chance to be drawn, so p is the smallest that 999 resamples can give.
    assert statistics.sign_flip(np.ones(60, dtype=np.int64), 999, statistics.generator("one")).p == 1 / 1000
    assert statistics.sign_flip(np.zeros(60, dtype=np.int64), 999, statistics.generator("one")).p == 1.0
    assert math.isnan(statistics.sign_flip(np.zeros(0, dtype=np.int64), 999, statistics.generator("one")).p)
    # One image can differ either way: every pattern is as extreme.
    assert statistics.sign_flip(np.array([0, 0, 3]), 999, statistics.generator("one")).p == 1.0


def test_sign_flip_is_symmetric() -> None:
    differences = np.array([3, 1, 1, 0, -1, 2, 2, -3, 1, 1])
    forward = statistics.sign_flip(differences, 5000, statistics.generator("cell"))
    backward = statistics.sign_flip(-differences, 5000, statistics.generator("cell"))
    assert forward.p == backward.p
    assert forward.statistic == -backward.statistic


def test_sign_flip_agrees_with_mcnemar_for_one_seed() -> None:
    """With one prediction each, flipping signs is the binomial test on the discordant images."""
    differences = np.array([1] * 14 + [-1] * 5 + [0] * 50)
    tested = statistics.sign_flip(differences, 50_000, statistics.generator("cell"))
    assert tested.p == pytest.approx(statistics.mcnemar(14, 5), abs=0.004)


def test_percentile_interval_is_that_of_resampled_images() -> None:
    random = np.random.default_rng(3)
    differences = random.integers(-3, 4, size=200)
    ours = statistics.percentile_interval(differences, 20_000, statistics.generator("cell"))
    drawn = differences[random.integers(0, 200, size=(20_000, 200))].mean(axis=1)
    assert ours == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    normal = differences.mean() + np.array([-1.96, 1.96]) * differences.std() / math.sqrt(200)
    assert ours == pytest.approx(normal, abs=0.03)


def test_percentile_interval_edges() -> None:
    assert statistics.percentile_interval(np.zeros(9, dtype=np.int64), 100, statistics.generator(1)) == (0.0, 0.0)
    assert math.isnan(statistics.percentile_interval(np.zeros(0, dtype=np.int64), 100, statistics.generator(1)).low)


def test_percentile_interval_covers() -> None:
    """95 % intervals of 600 paired images hold the truth in about 95 % of draws (Monte Carlo: 300 draws)."""
    random = np.random.default_rng(7)
    held = 0
    for draw in range(300):
        differences = random.choice([-1, 0, 1], p=[0.15, 0.6, 0.25], size=600)
        low, high = statistics.percentile_interval(differences, 500, statistics.generator(draw))
        held += low <= 0.1 <= high
    assert 0.90 < held / 300 < 0.99


def test_bca_interval() -> None:
    differences = [1.0, 2.5, 3.0, 4.5, 5.0, 9.0]
    low, high = statistics.bca_interval(differences, 2000, statistics.generator("cell"))
    assert 1.5 < low < np.mean(differences) < high < 8
    assert (low, high) == statistics.bca_interval(differences, 2000, statistics.generator("cell"))
    for without in ([], [1.0], [1.0, 2.0], [2.0] * 6):
        assert math.isnan(statistics.bca_interval(without, 2000, statistics.generator("cell")).low)


def test_mcnemar() -> None:
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 0) == 0.0625
    assert statistics.mcnemar(0, 6) == 0.03125
    assert statistics.mcnemar(2, 7) == pytest.approx(2 * (1 + 9 + 36) / 512)
    assert statistics.mcnemar(2, 7) == pytest.approx(mcnemar([[50, 2], [7, 50]], exact=True).pvalue)


def test_generator_belongs_to_its_cell() -> None:
    first = statistics.generator("digits", 2, "coop").random(3)
    assert (first == statistics.generator("digits", 2, "coop").random(3)).all()
    assert (first != statistics.generator("digits", 16, "coop").random(3)).all()
