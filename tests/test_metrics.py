"""The interval is Student's, and refuses what it cannot say anything about."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from lmtl_course.metrics import (
    T_95,
    accuracy,
    best_temperature,
    bootstrap_interval,
    brier,
    calibration_error,
    confusion,
    f1,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    precision_recall_f1,
    reliability,
)


def test_the_table_is_students_t():
    assert pytest.approx([scipy.stats.t.ppf(0.975, df) for df in range(1, 31)], abs=1e-6) == T_95


@pytest.mark.parametrize("values", [[0.1, 0.4], [3.0, 5.0, 11.0], [0.81, 0.79, 0.85, 0.80, 0.83]])
def test_equals_scipy(values):
    mean, half = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, sum(values) / len(values), scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-6)


def test_covers_the_truth_as_often_as_it_says():
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


N, K = 211, 7  # prime, so that a swapped axis cannot pass


def labels(seed=0):
    """Truth without class 3, predictions without 5, neither with 6; about half of the predictions are right."""
    rng = np.random.default_rng(seed)
    truth, guess = rng.choice([0, 1, 2, 4, 5], N), rng.choice([0, 1, 2, 3, 4], N)
    return truth, np.where((rng.random(N) < 0.4) & (truth != 5), truth, guess)


def scores(seed=0, items=N):
    """Logits that are too sure of themselves, and labels that they often miss."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, items)
    return 3 * (rng.normal(size=(items, K)) + 1.5 * np.eye(K)[truth]), truth


def flags(seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random(N) < 0.3  # makes the two systems fail on the same items
    return (rng.random(N) < 0.9) & ~hard, (rng.random(N) < 0.8) & ~hard


@pytest.fixture
def readers_view():
    """Shape checks by jaxtyping off: the sentence that a reader without them gets to see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_accuracy_and_confusion_equal_scikit_learn():
    truth, predicted = labels()
    assert accuracy(truth, predicted) == sklearn.metrics.accuracy_score(truth, predicted)
    ours, reference = (
        confusion(truth, predicted, K),
        sklearn.metrics.confusion_matrix(truth, predicted, labels=range(K)),
    )
    assert ours.tolist() == reference.tolist() != reference.T.tolist()
    assert confusion(truth.tolist(), predicted.tolist(), K).tolist() == ours.tolist()
    assert confusion(predicted, truth, K).tolist() == ours.T.tolist()


@pytest.mark.parametrize("classes", [None, K])
@pytest.mark.parametrize("average", ["macro", "micro", "none", "weighted"])
def test_precision_recall_and_f1_equal_scikit_learn(average, classes):
    truth, predicted = labels()
    theirs = {"average": None if average == "none" else average, "labels": classes and range(classes)}
    reference = sklearn.metrics.precision_recall_fscore_support(truth, predicted, zero_division=0, **theirs)[:3]
    for ours, expected in zip(precision_recall_f1(truth, predicted, average, classes), reference, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-15)
    expected = sklearn.metrics.f1_score(truth, predicted, zero_division=0, **theirs)
    np.testing.assert_allclose(f1(truth, predicted, average, classes), expected, rtol=0, atol=1e-15)


def test_f1_by_hand_and_what_the_averages_mean():
    truth, predicted = [0, 0, 0, 4], [0, 0, 4, 4]  # 0: P = 1, R = 2/3; 4: P = 1/2, R = 1
    assert f1(truth, predicted, "none") == pytest.approx([4 / 5, 2 / 3])
    assert precision_recall_f1(truth, predicted) == pytest.approx((3 / 4, 5 / 6, 11 / 15))
    assert f1(truth, predicted, classes=5) == pytest.approx(22 / 15 / 5)  # the three that never occur count as 0
    assert f1(truth, predicted, "weighted") == pytest.approx((3 * 4 / 5 + 2 / 3) / 4)
    assert precision_recall_f1(*labels(), "micro") == pytest.approx([accuracy(*labels())] * 3)
    assert f1([10**9], [10**9]) == 1.0  # ids of any size, without a matrix of that size


def test_reliability_and_calibration_error_equal_a_plain_loop():
    logits, truth = scores()
    probabilities, bins = scipy.special.softmax(logits, axis=1), 13
    confidence, right, counts = reliability(probabilities, truth, bins)
    error = 0.0
    for m in range(bins):
        inside = [i for i, p in enumerate(probabilities) if m / bins < p.max() <= (m + 1) / bins]
        assert counts[m] == len(inside)
        if not inside:
            assert math.isnan(confidence[m])
            assert math.isnan(right[m])
            continue
        assert confidence[m] == pytest.approx(np.mean([probabilities[i].max() for i in inside]), rel=1e-12)
        assert right[m] == pytest.approx(np.mean([probabilities[i].argmax() == truth[i] for i in inside]), rel=1e-12)
        error += len(inside) / N * abs(right[m] - confidence[m])
    assert (counts == 0).any()
    assert calibration_error(probabilities, truth, bins) == pytest.approx(error, rel=1e-12)


def test_an_edge_belongs_to_the_bin_below_it():
    tops = np.arange(6, 11) / 10
    assert reliability(np.stack([tops, 1 - tops], 1), [0] * 5)[2].tolist() == [0] * 5 + [1] * 5
    assert reliability(np.full((1, 2), 0.5), [0], bins=2)[2].tolist() == [1, 0]


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.3, 0.7]])
    assert calibration_error(probabilities, [0, 0, 1, 0]) == pytest.approx((2 * 0.1 + 2 * 0.2) / 4)
    assert calibration_error(probabilities, [0, 0, 1, 0], bins=1) == pytest.approx(0.8 - 0.75)
    assert brier(probabilities, [0, 0, 1, 0]) == pytest.approx((2 * (0.01 + 0.09 + 0.01 + 0.49)) / 4)


def test_honest_probabilities_are_calibrated_and_sharpened_ones_are_not():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1.0] * 3, 20_011)
    truth = (rng.random((len(honest), 1)) > honest.cumsum(1)).sum(1).clip(max=2)
    sharpened = honest**3 / (honest**3).sum(1, keepdims=True)
    assert calibration_error(honest, truth) < 0.02
    assert calibration_error(sharpened, truth) > 0.15
    assert brier(honest, truth) < brier(sharpened, truth)
    assert best_temperature(3 * np.log(honest), truth) == pytest.approx(3, rel=0.03)


def test_brier_equals_scikit_learn():
    logits, truth = scores()
    probabilities = scipy.special.softmax(logits, axis=1)
    expected = sklearn.metrics.brier_score_loss(truth, probabilities, labels=range(K), scale_by_half=False)
    assert brier(probabilities, truth) == pytest.approx(expected, rel=1e-12)
    assert brier(np.array([[1.0, 0.0]]), [1]) == 2.0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_best_temperature_equals_scipy(scale):
    logits, truth = scores()

    def slope(beta):
        p = scipy.special.softmax(beta * logits, axis=1)
        return ((p * logits).sum(1) - logits[np.arange(N), truth]).mean()

    def nats(t):
        return -scipy.special.log_softmax(logits / t, axis=1)[np.arange(N), truth].mean()

    ours = best_temperature(scale * logits, truth) / scale
    assert ours > 1
    assert ours == pytest.approx(1 / scipy.optimize.brentq(slope, 0.01, 10, xtol=1e-15, rtol=1e-14), rel=1e-10)
    found = scipy.optimize.minimize_scalar(nats, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9})
    assert ours == pytest.approx(found.x, rel=1e-6)  # a minimum is flat: values alone give half of the digits
    assert best_temperature(logits + 1000, truth) == pytest.approx(ours, rel=1e-9)  # softmax ignores a constant


def test_no_temperature_is_best_where_all_or_nothing_is_right():
    logits, _ = scores()
    for truth in (logits.argmax(1), logits.argmin(1)):
        with pytest.raises(ValueError, match=r"the truth scores .* no T is best; take held-out items"):
            best_temperature(logits, truth)
    with pytest.raises(ValueError, match="no T is best"):
        best_temperature(np.zeros((3, 2)), [0, 1, 1])


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_interval_equals_scipy(statistic):
    values = np.random.default_rng(0).exponential(5.0, size=101)
    estimate, low, high = bootstrap_interval(values, statistic, samples=40_000, seed=1)
    reference = scipy.stats.bootstrap(
        (values,), statistic, n_resamples=40_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert estimate == statistic(values)
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.02 * (high - low))


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(1000):
        _, low, high = bootstrap_interval(rng.random(60) < 0.7, samples=400, seed=seed)
        hits += low <= 0.7 <= high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


def test_bootstrap_of_a_score_of_the_whole_set():
    truth, predicted = labels()

    def score(items, axis):
        assert axis == -1
        return [f1(truth[row], predicted[row]) for row in items]

    estimate, low, high = bootstrap_interval(np.arange(N), score, samples=100)
    assert estimate == f1(truth, predicted)
    assert low < estimate < high


@pytest.mark.parametrize(("items", "samples", "blocks"), [(1009, 2003, [1039, 964]), (2**20 + 7, 2, [1, 1])])
def test_bootstrap_holds_a_million_values_at_once_and_repeats_itself(items, samples, blocks):
    values, sizes = np.random.default_rng(0).random(items), []

    def mean(drawn, axis):
        sizes.append(len(drawn))
        return drawn.mean(axis)

    once = bootstrap_interval(values, mean, samples)
    assert sizes == [*blocks, 1]  # the last is the estimate's
    assert bootstrap_interval(values, samples=samples) == once
    assert bootstrap_interval(values, samples=samples, seed=1) != once


def test_paired_bootstrap_swaps_with_its_systems():
    a, b = flags()
    difference, low, high, p = paired_bootstrap(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert low < difference < high
    assert paired_bootstrap(b, a) == pytest.approx((-difference, -high, -low, p), rel=1e-12)
    assert (difference, low, high) == bootstrap_interval(a.astype(float) - b)
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0, 1.0)
    assert paired_bootstrap([1] * 5, [0] * 5, samples=99)[3] == 1 / 100  # never 0
    test = scipy.stats.ttest_rel(a.astype(float), b.astype(float))
    assert p == pytest.approx(test.pvalue, rel=0.25)


def test_paired_bootstrap_counts_ties_by_hand():
    # Differences 1 and 0: resampled means 0, ½, 1 with chances ¼, ½, ¼; 0 and 1 are as far from ½ as ½ is from 0.
    assert paired_bootstrap([1, 1], [0, 1], samples=100_000)[3] == pytest.approx(1 / 2, abs=0.01)


def test_p_values_are_small_by_chance_as_often_as_they_say():
    rng, low, exact = np.random.default_rng(0), 0, 0
    for seed in range(500):
        a, b = rng.random((2, 83)) < 0.8  # equally good
        low += paired_bootstrap(a, b, samples=400, seed=seed)[3] <= 0.05
        exact += mcnemar(a, b) <= 0.05
    assert low / 500 == pytest.approx(0.05, abs=0.025)
    assert exact / 500 <= 0.05  # an exact test may be shy, never bold


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (2, 11), (11, 2), (7, 7), (53, 31), (1009, 907), (4001, 3001)])
def test_mcnemar_equals_scipy(only_a, only_b):
    a, b = np.repeat([1, 0, 1, 0], [only_a, only_b, 5, 3]), np.repeat([0, 1, 1, 0], [only_a, only_b, 5, 3])
    expected = scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(a.astype(bool), b.astype(bool)) == mcnemar(a, b)


def test_mcnemar_by_hand():
    assert mcnemar([1, 1, 0], [1, 1, 0]) == 1.0
    assert mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]) == 2 * (1 + 6) / 2**6


@pytest.mark.usefixtures("readers_view")
@pytest.mark.parametrize("measure", [accuracy, f1, mcnemar, paired_bootstrap, lambda a, b: confusion(a, b, 2)])
def test_lists_of_different_length_and_empty_ones_are_refused(measure):
    with pytest.raises(ValueError, match=r"have shapes \(3,\) and \(2,\); give one value for each of the same items"):
        measure([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match=r"have shapes \(0,\) and \(0,\); .* at least 1"):
        measure([], [])
    with pytest.raises(ValueError, match=r"have shapes \(2, 2\) and \(2, 2\)"):
        measure(np.eye(2, dtype=int), np.eye(2, dtype=int))


@pytest.mark.usefixtures("readers_view")
def test_labels_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"label 2 is outside 0…1; .* count the classes again"):
        confusion([0, 1], [0, 2], 2)
    for measure in (accuracy, f1):
        with pytest.raises(ValueError, match="label -100 is outside 0…inf; leave out ignored items"):
            measure([0, -100], [0, 1])
        with pytest.raises(ValueError, match="are int64 and float64, expected integers; take the argmax"):
            measure([0, 1], [0.2, float("nan")])
    with pytest.raises(ValueError, match="average is 'mean', expected 'macro'"):
        f1([0], [0], average="mean")


@pytest.mark.usefixtures("readers_view")
@pytest.mark.parametrize("measure", [reliability, calibration_error, brier])
def test_rows_that_are_no_distribution_are_refused(measure):
    fine = [0.5, 0.5]
    for row in ([0.7, 0.7], [1.5, -0.5], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match=r"row 1 of the probabilities is \[.*, sum .*take the softmax of logits"):
            measure(np.array([fine, row]), [0, 1])
    with pytest.raises(ValueError, match=r"have shape \(2,\), expected \[items classes\]"):
        measure(np.array(fine), [0, 1])
    with pytest.raises(ValueError, match=r"have shapes \(1,\) and \(2,\)"):
        measure(np.array([fine, fine]), [0])
    with pytest.raises(ValueError, match="label 2 is outside 0…1"):
        measure(np.array([fine, fine]), [0, 2])
    measure(np.array([[0.5, 0.4995]], dtype=np.float16), [0])  # half precision sums to 1 only nearly


@pytest.mark.usefixtures("readers_view")
def test_other_values_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match=r"row 1 of the logits is .*inf.*, expected finite numbers; look at the run"):
        best_temperature(np.array([[0.0, 1.0], [-np.inf, 1.0]]), [0, 1])
    with pytest.raises(ValueError, match="bins is 0, expected at least 1"):
        reliability(np.array([[0.5, 0.5]]), [0], bins=0)
    with pytest.raises(ValueError, match=r"values have shape \(1,\), .* at least 2 items"):
        bootstrap_interval([1.0])
    with pytest.raises(ValueError, match="item 1 has the value nan, expected a finite one"):
        bootstrap_interval([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="item 0 has the value nan"):
        paired_bootstrap([float("nan"), 1], [1, 0])
    with pytest.raises(ValueError, match="samples is 0, expected at least 1"):
        bootstrap_interval([1.0, 2.0], samples=0)
    with pytest.raises(ValueError, match=r"a value is 0\.5, expected 0 or 1 .* paired_bootstrap takes scores"):
        mcnemar([1, 0.5], [0, 1])
