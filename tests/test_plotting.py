"""Figures carry their description into the notebook file; bands show what the seeds did."""

import pytest

from lmtl_course.plotting import COLOURS, band, figure, print_source, show


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    return shown


def test_show_stores_the_alt_text_beside_the_picture(displayed):
    fig, ax = figure(width=5.0)
    ax.plot([0, 1], [0, 1])
    alt = "A straight line that rises from zero to one."
    show(fig, alt=alt)
    data, metadata = displayed[0]._repr_png_()
    assert metadata == {"alt": alt, "width": 480}
    assert len(data) > 1000


def test_show_refuses_a_figure_without_description(displayed):
    with pytest.raises(ValueError, match="alt text of 0 characters"):
        show(figure()[0], alt="  ")
    assert displayed == []


def test_lines_titles_and_legends_follow_the_books_style():
    _, ax = figure()
    (line,) = ax.plot([1, 2], label="line")
    assert line.get_color() == COLOURS[0]
    assert not ax.legend().get_frame_on()
    ax.set_title("on the left")
    assert ax.get_title(loc="left") == "on the left"


def test_colours_are_readable_on_white():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 3.0, colour


def test_band_spans_the_seeds():
    _, ax = figure()
    band(ax, [10, 20, 30], [[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]], label="two seeds")
    assert ax.lines[0].get_ydata().tolist() == [2.0, 2.0, 5.0]
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == 1.0
    assert heights.max() == 7.0


def test_band_names_both_lengths():
    with pytest.raises(ValueError, match=r"\(1, 2\), expected \(seeds, 3\)"):
        band(figure()[1], [1, 2, 3], [[1.0, 2.0]], label="wrong")


def test_print_source_outside_a_notebook_prints_the_code(capsys):
    print_source(band)
    assert capsys.readouterr().out.startswith("def band(")
