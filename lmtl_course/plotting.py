"""What a notebook shows: figures that carry their own description, and the source of the code that it uses.

Figures are plain `matplotlib.figure.Figure` objects, made without pyplot: nothing is displayed twice, nothing stays
in memory after the cell, and `show` refuses a figure without alt text. Lettering is sized to stay legible where a phone
shows the figure at half its width.
"""

import inspect
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

COLOURS = ("#1f6fb4", "#d1495b", "#2e8b57", "#8f5bb0", "#b7791f", "#52606d")
"""Six line colours, told apart with colour-vision deficiency, dark enough on white (contrast 3:1 or more)."""

STYLE: dict[Any, Any] = {
    "font.size": 11.5,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def figure(
    rows: int = 1, columns: int = 1, width: float = 6.4, height: float = 3.5, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure in the book's style and its axes, one object or an array of them as `plt.subplots` gives.

    The style is put in force for the whole session, because legends and titles read it when they are made.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        width: of the whole figure, in inches.
        height: of the whole figure, in inches.
        subplots: passed on to `Figure.subplots` (`sharex`, `width_ratios` and so on).

    >>> fig, ax = figure()
    >>> _ = ax.plot([1, 2, 3])
    >>> len(ax.lines)
    1
    """
    rcParams.update(STYLE)
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook with a text that says what a sighted reader sees in it.

    Args:
        fig: the figure, from `figure`.
        alt: one or two sentences: what is plotted, and the pattern that the chapter speaks of.

    Raises:
        ValueError: the alt text is missing or too short to describe anything.

    >>> fig, ax = figure()
    >>> show(fig, alt="curve")
    Traceback (most recent call last):
    ...
    ValueError: alt text of 5 characters ('curve'): say in a sentence what the figure shows
    """
    from IPython.display import Image, display

    if len(alt.strip()) < 20:
        raise ValueError(
            f"alt text of {len(alt.strip())} characters ({alt.strip()!r}): say in a sentence what the figure shows"
        )
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=144)
    display(Image(data=buffer.getvalue(), format="png", width=round(fig.get_figwidth() * 96), alt=alt))


def print_source(thing: Callable[..., Any] | type) -> None:
    """Show the source of a function or class of the package, highlighted, so that nothing a notebook uses is hidden.

    Args:
        thing: a function or a class.

    Outside a notebook the source is printed as plain text.

    >>> import contextlib
    >>> with contextlib.redirect_stdout(io.StringIO()) as page:
    ...     print_source(band)
    >>> page.getvalue()[:13]
    'def band(ax: '
    """
    from IPython import get_ipython
    from IPython.display import Code, display

    source = inspect.getsource(thing).rstrip()
    if get_ipython() is None:
        print(source)
    else:
        display(Code(source, language="python"))


def band(ax: Any, x: Any, runs: Any, label: str, colour: str | None = None) -> None:
    """Draw several runs of one experiment as their mean with a band from the smallest to the largest.

    Args:
        ax: the axes to draw on.
        x: the shared horizontal positions, shape (points,).
        runs: one row per seed, shape (seeds, points).
        label: for the legend.
        colour: a matplotlib colour; the next of the cycle where None.

    Raises:
        ValueError: the rows do not match the positions.

    >>> fig, ax = figure()
    >>> band(ax, [1, 2], [[1.0, 2.0], [3.0, 2.0]], label="two seeds")
    >>> ax.lines[0].get_ydata().tolist()
    [2.0, 2.0]
    """
    rows, positions = np.asarray(runs, dtype=float), np.asarray(x, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != len(positions):
        raise ValueError(f"runs have shape {rows.shape}, expected (seeds, {len(positions)}) to match x")
    (line,) = ax.plot(positions, rows.mean(axis=0), marker="o", markersize=4, label=label, color=colour)
    ax.fill_between(positions, rows.min(axis=0), rows.max(axis=0), alpha=0.18, color=line.get_color(), linewidth=0)
