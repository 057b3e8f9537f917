"""Numbers that say how sure they are: the ground floor for every comparison in the book."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

Labels = Sequence[int] | Int[np.ndarray, " items"]
Rows = Float[np.ndarray, "items classes"]
Values = Sequence[float | int] | Shaped[np.ndarray, " items"]
Bins = Float[np.ndarray, " bins"]
Score = float | Float[np.ndarray, " classes"]

# Two-sided 95 % quantiles of Student's t distribution for 1 … 30 degrees of freedom (the test recomputes them).
T_95 = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
    2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
    2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
)  # fmt: skip


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    r"""Mean of a few repeated measurements and the half-width of its 95 % interval, $t_{n-1}\, s / \sqrt{n}$.

    Args:
        values: one number per seed, in any unit; 2 to 31 of them.

    Returns:
        The mean and the half-width, in the unit of the values. To compare two methods run on the same seeds, pass the
        differences and ask whether the interval stays clear of zero.

    Raises:
        ValueError: fewer than 2 or more than 31 values, or a value that is not finite.

    Source: Student 1908, doi:10.2307/2331554.

    >>> mean, half = mean_interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.2f} ± {half:.2f}")
    2.00 ± 2.48
    """
    n = len(values)
    if not 2 <= n <= len(T_95) + 1:
        raise ValueError(f"an interval needs 2 to {len(T_95) + 1} values, got {n}; repeat the run with other seeds")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"every value must be finite, got {list(values)}; look at the run that diverged")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, T_95[n - 2] * math.sqrt(variance / n)


def accuracy(truth: Labels, predicted: Labels) -> float:
    r"""Share of the items whose class was found, $\frac1n \sum_i [\hat y_i = y_i]$.

    Args:
        truth: the class y of each item, 0 or larger.
        predicted: the class ŷ that the model chose for it.

    Returns:
        0 to 1. Where one class is common, compare with its share, and quote `f1` beside it.

    Raises:
        ValueError: the lengths differ, there are no items, or a label is no integer of at least 0.

    Source: Sebastiani 2002, doi:10.1145/505282.505283, section 7.

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    truth, predicted = _labels(truth, predicted)
    return float((truth == predicted).mean())


def confusion(truth: Labels, predicted: Labels, classes: int) -> Int[np.ndarray, "classes classes"]:
    r"""Which class is taken for which, $C_{jk} = |\{i : y_i = j,\ \hat y_i = k\}|$.

    Args:
        truth: the class y of each item, 0 … classes - 1.
        predicted: the class ŷ that the model chose for it.
        classes: how many there are, whether they occur or not.

    Returns:
        Counts of items: a row for each true class, a column for each predicted one, the right answers on the diagonal.

    Raises:
        ValueError: as for `accuracy`, or a label of `classes` or more.

    Source: Sebastiani 2002, doi:10.1145/505282.505283, section 7 (the contingency table).

    >>> confusion([0, 0, 0, 1], [0, 1, 1, 1], classes=2)
    array([[1, 2],
           [0, 1]])
    """
    truth, predicted = _labels(truth, predicted, classes)
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(
    truth: Labels, predicted: Labels, average: str = "macro", classes: int | None = None
) -> tuple[Score, Score, Score]:
    r"""Precision $C_{kk}/\sum_j C_{jk}$, recall $C_{kk}/\sum_j C_{kj}$ and $F_1$, their harmonic mean, of class k.

    Args:
        truth: the class y of each item.
        predicted: the class ŷ that the model chose for it.
        average: "macro" is the mean over the classes (of their $F_1$, not the $F_1$ of the other two means), "weighted"
            counts a class as often as it is true, "micro" adds up the counts first (with one label per item that makes
            all three the accuracy), "none" gives arrays with one value per class.
        classes: how many there are; None means those that occur in `truth` or `predicted`, in order.

    Returns:
        Scores from 0 to 1. 0/0 counts as 0: with `classes` given, one that occurs nowhere lowers the macro average.

    Raises:
        ValueError: as for `confusion`, or the average has another name.

    Source: van Rijsbergen 1979, "Information Retrieval", chapter 7; macro: Opitz and Burst 2019, arXiv:1911.03347.

    >>> precision_recall_f1([0, 0, 0, 1], [0, 0, 1, 1], average="none")[0]  # 1 is said twice, once rightly
    array([1. , 0.5])
    """
    if average not in ("macro", "micro", "none", "weighted"):
        raise ValueError(f"average is {average!r}, expected 'macro', 'micro', 'none' or 'weighted'")
    truth, predicted = _labels(truth, predicted, classes)
    if classes is None:
        found, numbers = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
        (truth, predicted), classes = np.split(numbers, 2), len(found)
    table = confusion(truth, predicted, classes)
    counts = [table.diagonal(), table.sum(0), table.sum(1)]
    right, claimed, support = [count.sum(keepdims=True) for count in counts] if average == "micro" else counts
    fractions = (right, claimed), (right, support), (2 * right, claimed + support)
    precision, recall, harmonic = (above / np.maximum(below, 1) for above, below in fractions)  # 0/1 for 0/0
    if average == "none":
        return precision, recall, harmonic
    weights = support if average == "weighted" else None
    mean = [float(np.average(score, weights=weights)) for score in (precision, recall, harmonic)]
    return mean[0], mean[1], mean[2]


def f1(truth: Labels, predicted: Labels, average: str = "macro", classes: int | None = None) -> Score:
    r"""The last of `precision_recall_f1`, $F_1 = 2\,C_{kk} / \sum_j (C_{jk} + C_{kj})$; arguments and errors as there.

    >>> f1([0, 0, 0, 1], [0, 0, 1, 1], average="none")
    array([0.8       , 0.66666667])
    """
    return precision_recall_f1(truth, predicted, average, classes)[2]


def reliability(probabilities: Rows, truth: Labels, bins: int = 10) -> tuple[Bins, Bins, Int[np.ndarray, " bins"]]:
    r"""Confidence beside accuracy: items grouped by the probability p of their most likely class.

    Args:
        probabilities: one row per item that sums to 1 (within 0.001).
        truth: the class of each item.
        bins: how many of equal width; bin m of M holds $(m-1)/M < p \le m/M$: an edge belongs to the bin below it.

    Returns:
        For each bin the mean of p, the share of items whose most likely class is the true one, and the number of items;
        in an empty bin nan, nan and 0, so that a plot leaves it out.

    Raises:
        ValueError: the shapes do not fit, a row is no distribution, a label is no column, or bins < 1.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.

    >>> confidence, right, counts = reliability(np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]), [0, 0, 1], bins=4)
    >>> print(confidence, right, counts)
    [ nan  nan 0.7 0.85] [nan nan 0. 1.] [0 0 1 2]
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1; 10 or 15 are usual")
    probabilities, truth = _rows(probabilities, truth)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    where = np.searchsorted(np.arange(1, bins) / bins, confidence)  # how many inner edges lie strictly below
    counts = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0/0 is nan
        return np.bincount(where, confidence, bins) / counts, np.bincount(where, right, bins) / counts, counts


def calibration_error(probabilities: Rows, truth: Labels, bins: int = 10) -> float:
    r"""Expected calibration error of the most likely class, $\sum_m \frac{n_m}{n} |\mathrm{acc}_m - \mathrm{conf}_m|$.

    Arguments and errors are those of `reliability`. 0 means that of all items held with 80 % confidence 80 % are right.
    The number depends on `bins` (quote both), and with few items chance alone keeps it above 0.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.

    >>> calibration_error(np.array([[0.75, 0.25]] * 4), [0, 0, 1, 1])  # 75 % sure, 50 % right
    0.25
    """
    confidence, right, counts = reliability(probabilities, truth, bins)
    return float(np.nansum(counts * np.abs(right - confidence)) / counts.sum())


def brier(probabilities: Rows, truth: Labels) -> float:
    r"""Squared distance from the answer, $\frac1n \sum_i \sum_k (p_{ik} - [y_i = k])^2$.

    Arguments and errors are those of `reliability`. Honest probabilities
    earn the least. It runs from 0 to 2, as Brier wrote it; some quote half of it.

    Source: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    >>> brier(np.array([[0.5, 0.5], [0.0, 1.0]]), [0, 1])
    0.25
    """
    probabilities, truth = _rows(probabilities, truth)
    return float(((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1).mean())


def best_temperature(logits: Rows, truth: Labels) -> float:
    r"""The T that makes $\mathrm{softmax}(z/T)$ pay the fewest nats for the truth; it changes no prediction.

    In $\beta = 1/T$ the mean loss $\mathrm{lse}(\beta z) - \beta z_y$ has the slope $\mathrm{E}_p[z] - z_y$ with
    $p = \mathrm{softmax}(\beta z)$, and the slope itself grows by $\mathrm{Var}_p[z] \ge 0$: the loss is convex, and
    halving an interval finds where its slope is zero.

    Args:
        logits: one row of scores z per held-out item, before any softmax.
        truth: the class y of each item.

    Returns:
        T above 0, to 12 digits; above 1 the model was too sure of itself.

    Raises:
        ValueError: the shapes do not fit, a score is not finite, a label is no column, or there is no best T: the loss
            falls for ever towards 0 (every item is right) or infinity (the truth scores no more than the average).

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.

    >>> z = np.array([[math.log(3), 0.0]] * 10)  # sure to 3/4, and right 9 times in 10: odds of 9 are 3²
    >>> round(best_temperature(z, [0] * 9 + [1]), 9)
    0.5
    """
    logits, truth = _rows(logits, truth, "logits")
    z = logits - logits.max(1, keepdims=True)  # the best class scores 0, so that no exponential overflows
    true, average = z[np.arange(len(z)), truth].mean(), z.mean()
    if not average < true < 0:
        scores = f"{true:.3g} below the best class, the average class {average:.3g}"
        raise ValueError(f"the truth scores {scores}: no T is best; take held-out items, most right and some wrong")

    def slope(beta: float) -> float:
        p = np.exp(beta * z)
        return float(((p * z).sum(1) / p.sum(1)).mean() - true)

    low, high = 0.0, -1 / float(z.min())
    while slope(high) < 0:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def bootstrap_interval(
    values: Values, statistic: Callable[..., Any] = np.mean, samples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    r"""A number measured on one test set, and the interval that holds 95 % of its values when items are drawn again.

    A resample draws n of the n items with replacement; the ends are the 2.5th and 97.5th percentiles over resamples.
    That is the luck of the test items; the luck of the seeds is for `mean_interval`.

    Args:
        values: one per item: right or wrong, a loss, a score; at least 2.
        statistic: called with an array [resamples items] and `axis=-1`, gives one number per row. For a score of the
            whole set, such as `f1`, pass the numbers of the items as `values` and look them up.
        samples: how often to draw; about a million values are held at once (n, if that is more).
        seed: of the draws.

    Returns:
        The statistic of `values`, and the two ends.

    Raises:
        ValueError: fewer than 2 values, one that is not finite, or samples < 1.

    Source: Efron 1979, doi:10.1214/aos/1176344552; Efron and Tibshirani 1993, chapter 13 (percentiles).

    >>> share, low, high = bootstrap_interval([True] * 80 + [False] * 20)
    >>> print(f"{share:.2f}, between {low:.2f} and {high:.2f}")
    0.80, between 0.72 and 0.88
    """
    return _resampled(values, statistic, samples, seed)[:3]


def paired_bootstrap(
    correct_a: Values, correct_b: Values, samples: int = 10_000, seed: int = 0
) -> tuple[float, float, float, float]:
    r"""Is system a better than b on the same items? $d = \bar a - \bar b$, its 95 % interval, and a two-sided p.

    The null hypothesis: over all texts that the items were drawn from, the mean difference is zero. How far chance then
    moves it shows in the distances of resampled d* from d: $p = (1 + |\{|d^* - d| \ge |d|\}|) / (1 + \text{samples})$.
    The ones stand for the observed d, so that p is never 0. Swapping a and b flips d and keeps p.

    Args:
        correct_a: right or wrong (or a score) for each item.
        correct_b: the same for the other system, in the same order.
        samples: how often to draw; the smallest p is 1 / (1 + samples).
        seed: of the draws.

    Returns:
        d, the two ends of its interval as in `bootstrap_interval`, and p.

    Raises:
        ValueError: the lengths differ, or as for `bootstrap_interval`.

    Source: Berg-Kirkpatrick et al. 2012 (D12-1091), two-sided; the added one: Phipson and Smyth 2010, arXiv:1603.05766.

    >>> difference, low, high, p = paired_bootstrap([1] * 90 + [0] * 10, [1] * 80 + [0] * 20)
    >>> print(f"{difference:.2f}, between {low:.2f} and {high:.2f}; p < 0.01: {p < 0.01}")
    0.10, between 0.05 and 0.16; p < 0.01: True
    """
    a, b = _pair(correct_a, correct_b, "correct_a and correct_b")
    difference, low, high, drawn = _resampled(a.astype(float) - b.astype(float), np.mean, samples, seed)
    as_far = np.abs(drawn - difference) >= abs(difference)  # for flags exact: d* = 0 and d* = 2d are not rounded away
    return difference, low, high, float((1 + as_far.sum()) / (1 + samples))


def mcnemar(correct_a: Values, correct_b: Values) -> float:
    r"""Exact two-sided p for two systems that are right or wrong on the same items.

    Only the m items on which one alone is right can tell them apart. The null hypothesis: each of these is as likely
    to be a's as b's. The smaller share k is then binomial: $p = \min(1, 2 \sum_{i=0}^{k} \binom{m}{i} / 2^m)$.

    Args:
        correct_a: right or wrong for each item.
        correct_b: the same for the other system, in the same order.

    Raises:
        ValueError: the lengths differ, there are no items, or a value is neither 0 nor 1.

    Source: McNemar 1947, doi:10.1007/BF02295996.

    >>> mcnemar([1, 1, 1, 1, 0], [0, 0, 0, 0, 0])  # four to none: 2/2⁴
    0.125
    """
    a, b = _pair(correct_a, correct_b, "correct_a and correct_b")
    if stray := [value for value in (*a, *b) if value not in (0, 1)]:
        raise ValueError(f"a value is {stray[0]}, expected 0 or 1 for wrong or right; paired_bootstrap takes scores")
    only_a, only_b = int((a > b).sum()), int((a < b).sum())
    ways = total = 1  # whole numbers, so nothing is rounded
    for i in range(1, min(only_a, only_b) + 1):
        ways = ways * (only_a + only_b + 1 - i) // i
        total += ways
    return min(1.0, 2 * total / 2 ** (only_a + only_b))


def _pair(first: Any, second: Any, names: str) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        shapes = f"{first.shape} and {second.shape}"
        raise ValueError(f"{names} have shapes {shapes}; give one value for each of the same items, at least 1")
    return first, second


def _labels(truth: Any, predicted: Any, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = _pair(truth, predicted, "truth and predictions")
    if not {truth.dtype.kind, predicted.dtype.kind} <= set("iub"):
        kinds = f"{truth.dtype} and {predicted.dtype}"
        raise ValueError(f"truth and predictions are {kinds}, expected integers; take the argmax of scores")
    last = math.inf if classes is None else classes - 1
    for label in (truth.min(), predicted.min(), truth.max(), predicted.max()):
        if not 0 <= label <= last:
            raise ValueError(f"label {label} is outside 0…{last}; leave out ignored items, or count the classes again")
    return truth.astype(np.int64), predicted.astype(np.int64)


def _rows(scores: Any, truth: Any, name: str = "probabilities") -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"{name} have shape {scores.shape}, expected [items classes]; give one row for each item")
    good, rule = np.isfinite(scores).all(1), "finite numbers; look at the run that diverged"
    if name == "probabilities":
        good &= (scores.min(1) >= 0) & (np.abs(scores.sum(1) - 1) <= 1e-3)  # half precision comes that close
        rule = "numbers of at least 0 that sum to 1; take the softmax of logits first"
    if not good.all():
        row = scores[good.argmin()]
        raise ValueError(f"row {good.argmin()} of the {name} is {row}, sum {row.sum():.4g}, expected {rule}")
    return scores, _labels(truth, scores.argmax(1), scores.shape[1])[0]


def _resampled(values: Any, statistic: Any, samples: int, seed: int) -> tuple[float, float, float, np.ndarray]:
    values = np.asarray(values)
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1; 10000 settle two digits of an interval")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values have shape {values.shape}, expected one for each of at least 2 items; test on more")
    if (bad := ~np.isfinite(values)).any():
        raise ValueError(f"item {bad.argmax()} has the value {values[bad][0]}, expected a finite one; look at the run")
    rng, drawn, rows = np.random.default_rng(seed), np.empty(samples), max(1, 2**20 // len(values))
    for start in range(0, samples, rows):
        block = drawn[start : start + rows]
        block[:] = statistic(values[rng.integers(len(values), size=(len(block), len(values)))], axis=-1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.asarray(statistic(values[None], axis=-1))[0]), float(low), float(high), drawn
