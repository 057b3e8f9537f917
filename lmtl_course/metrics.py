"""Numbers that say how sure they are: the ground floor for every comparison in the book."""

import math
from collections.abc import Sequence

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
