"""The interval is Student's, and refuses what it cannot say anything about."""

import pytest
import scipy.stats

from lmtl_course.metrics import T_95, mean_interval


def test_the_table_is_students_t():
    assert pytest.approx([scipy.stats.t.ppf(0.975, df) for df in range(1, 31)], abs=1e-6) == T_95


@pytest.mark.parametrize("values", [[0.1, 0.4], [3.0, 5.0, 11.0], [0.81, 0.79, 0.85, 0.80, 0.83]])
def test_equals_scipy(values):
    mean, half = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, sum(values) / len(values), scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-6)


def test_covers_the_truth_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(4000):
        mean, half = mean_interval(rng.normal(7.0, 2.0, size=3).tolist())
        hits += abs(mean - 7.0) <= half
    assert hits / 4000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 32])
def test_too_few_or_too_many_values(values):
    with pytest.raises(ValueError, match=f"got {len(values)}"):
        mean_interval(values)


def test_a_diverged_run_is_not_averaged_away():
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, float("nan"), 2.0])
