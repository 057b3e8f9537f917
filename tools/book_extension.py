r"""What the book needs of Sphinx and no installed extension does; registered under `sphinx.local_extensions`.

Maths: MathJax and its fonts are copied out of an installed package into the built book, so that formulas need no
network. Equations: `$$ … \tag{5.1}` reaches the page as the notebook has it. Figures: the alt text that a notebook
stores with an image reaches the page. Buttons: Kaggle stands beside Binder and Colab. Tables: `chapter-table`,
`chapter-status` and the times of a `syllabus` are made from the notebooks, `problem-sets` from the teacher's notebooks
and `data-table` from the table of data sets; `grading-time` is a sentence from a results file. None can go out of date.
"""

import hashlib
import json
import re
from binascii import a2b_base64
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset_file

MATHJAX_PACKAGE = "sphinx-mathjax-offline"
MATHJAX_PARTS = (  # what tex-chtml.js may ask for: fonts, rarer TeX commands, the speech explorer in a formula's menu
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2/",
    "input/tex/extensions/",
    "a11y/",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif")
Row = tuple[str | nodes.Node, ...]


def mathjax_files() -> dict[str, Path]:
    """Every MathJax file that the book carries: its path below `_static/mathjax` and where it is installed."""
    try:
        installed = distribution(MATHJAX_PACKAGE).files or []
    except PackageNotFoundError as error:
        raise ExtensionError(f"formulas need {MATHJAX_PACKAGE}: pip install {MATHJAX_PACKAGE}") from error
    found = {}
    for file in installed:
        _, _, inner = file.as_posix().partition("/static/mathjax/")
        if inner.startswith(MATHJAX_PARTS):
            found[inner] = Path(str(file.locate()))
    missing = [part for part in MATHJAX_PARTS if not any(inner.startswith(part) for inner in found)]
    if missing:
        raise ExtensionError(f"{MATHJAX_PACKAGE} lacks {', '.join(missing)}: install version 0.0.2")
    return found


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for inner, source in mathjax_files().items():
        target = Path(app.outdir, "_static", "mathjax", inner)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_asset_file(str(source), str(target))


def keep_equations_as_written(app: Sphinx, doctree: nodes.document) -> None:
    r"""Hand display formulas to MathJax untouched.

    Sphinx puts `split` around a formula that holds `\\`, and `\tag` is an error inside `split`. Jupyter, Colab and
    GitHub add nothing; neither does the book.
    """
    if app.builder.format != "html":
        return
    for block in doctree.findall(nodes.math_block):
        if not block.get("nowrap") and not block.get("label"):
            block["nowrap"] = True
            block[:] = [nodes.Text(rf"\[{block.astext().strip()}\]")]


@cache
def stored_alt_texts(notebook: Path, modified: float) -> dict[str, str]:
    """Alt text of every stored image of a notebook by the sha256 of its bytes, the name that MyST-NB gives the file.

    `modified` is the notebook's modification time: it makes the cache let go of an older version.
    """
    texts = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for kind in IMAGE_TYPES:
                alt = output.get("metadata", {}).get(kind, {}).get("alt")
                if alt and kind in output.get("data", {}):
                    encoded = "".join(output["data"][kind])
                    texts[hashlib.sha256(a2b_base64(encoded)).hexdigest()] = alt
    return texts


def give_figures_their_alt_text(app: Sphinx, doctree: nodes.document) -> None:
    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix != ".ipynb":
        return
    texts = stored_alt_texts(source, source.stat().st_mtime)
    for image in doctree.findall(nodes.image):
        name = Path(image["uri"]).stem
        if name in texts and not image.get("alt"):
            image["alt"] = texts[name]


def add_kaggle_button(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put Kaggle into the theme's group of launch buttons, which stands on notebook pages only."""
    options = app.config.html_theme_options
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            file = f"{options['repository_url']}/blob/{options['repository_branch']}/{page}.ipynb"
            group["buttons"].append(
                {
                    "type": "link",
                    "text": "Kaggle",
                    "tooltip": "Launch on Kaggle",
                    "icon": "fab fa-kaggle",
                    "url": f"https://kaggle.com/kernels/welcome?src={file}",
                }
            )


def chapters(root: Path) -> dict[str, dict[str, Any]]:
    """The notebooks of the book, in reading order: their parsed JSON by name."""
    paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def opening(notebook: dict[str, Any]) -> dict[str, str]:
    """A chapter's title and the lines under it: `title`, `able`, `need` and `time` (a missing one is empty)."""
    text = "".join(notebook["cells"][0]["source"])
    lines = {
        "title": r"^# +(?:\d+ · )?(.+)$",
        "able": r"^\*\*You will be able to\W*\*\*[\s:…]*(.+)$",
        "need": r"^\*\*You need\W*\*\*[\s:…]*(.+)$",
        "time": r"^\*\*Time\W*\*\*[\s:…]*(.+)$",
    }
    found = {name: re.search(pattern, text, flags=re.MULTILINE) for name, pattern in lines.items()}
    return {name: match.group(1).strip() if match else "" for name, match in found.items()}


HOURS = {
    "half an hour": 0.5,
    "an hour": 1.0,
    "an hour and a half": 1.5,
    "two hours": 2.0,
    "two and a half hours": 2.5,
    "three hours": 3.0,
}


def reading_hours(time: str) -> float:
    """How long a chapter takes to read, from the time line of its opening.

    >>> reading_hours("about an hour and a half to read; under a minute to run, on any machine.")
    1.5
    """
    match = re.match(r"(?:about )?(.+?) to read\b", time)
    if not match or match[1] not in HOURS:
        raise ExtensionError(f"a time line says how long a chapter takes to read, {', '.join(HOURS)}; found {time!r}")
    return HOURS[match[1]]


def in_hours(hours: float) -> str:
    """Hours as a page shows them.

    >>> in_hours(0.5), in_hours(2.0), in_hours(3.5)
    ('½ h', '2 h', '3½ h')
    """
    whole, half = divmod(int(2 * hours), 2)
    return f"{whole or ''}{'½' if half else ''} h"


class GeneratedTable(SphinxDirective):
    """A table made while the book is built; a subclass says what stands in it."""

    headings: tuple[str, ...] = ()
    empty = "Nothing to show yet."

    def rows(self) -> list[Row]:
        """The cells of each row: Markdown that stays in a line, or a node."""
        raise NotImplementedError

    def root(self) -> Path:
        """The folder of the book's sources, which is the repository."""
        return Path(self.env.srcdir)

    def link(self, name: str, text: str) -> nodes.Node:
        """A link to a chapter, relative to the page that the table stands on."""
        self.env.note_dependency(str(self.root() / "notebooks" / f"{name}.ipynb"))
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{name}")
        return nodes.reference("", text, refuri=uri, internal=True)

    def run(self) -> list[nodes.Node]:
        """The table in a box that scrolls, or a sentence where there is nothing to show."""
        rows = self.rows()
        if not rows:
            return [nodes.paragraph(text=self.empty)]
        group = nodes.tgroup(cols=len(self.headings))
        group.extend(nodes.colspec(colwidth=1) for _ in self.headings)
        group += nodes.thead("", self._row(self.headings))
        group += nodes.tbody("", *[self._row(row) for row in rows])
        table = nodes.table("", group, classes=["table", "generated-table"])
        return [nodes.container("", table, classes=["wide-table"])]

    def _row(self, cells: Row) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            content = self.parse_inline(cell)[0] if isinstance(cell, str) else [cell]
            row += nodes.entry("", nodes.paragraph("", "", *content))
        return row


class ChapterTable(GeneratedTable):
    """Chapter by chapter: what the reader will be able to do, and how long it takes."""

    headings = ("", "Chapter", "You will be able to", "Time")

    def rows(self) -> list[Row]:
        """One row for each notebook."""
        result: list[Row] = []
        for name, notebook in chapters(self.root()).items():
            head = opening(notebook)
            result.append((name[:2], self.link(name, head["title"]), head["able"], head["time"]))
        return result


class ChapterStatus(GeneratedTable):
    """Where each chapter's stored outputs come from, as `make notebooks` wrote it down."""

    empty = "No chapter has stored outputs yet."
    headings = ("Chapter", "Data", "Run on", "Seconds", "Peak memory", "Date", "Versions", "Code")

    def rows(self) -> list[Row]:
        """One row for each notebook."""
        result: list[Row] = []
        for name, notebook in chapters(self.root()).items():
            stamp = notebook["metadata"].get("lmtl")
            if stamp is None:
                continue
            hardware = stamp["hardware"] + ("" if stamp["device"] == "cpu" else f", {stamp['device']}")
            versions = ", ".join(f"{package} {version}" for package, version in stamp["versions"].items())
            title = f"{name[:2]} {opening(notebook)['title']}"
            result.append(
                (
                    self.link(name, title),
                    ", ".join(stamp["data"]) or "none",
                    hardware,
                    f"{stamp['seconds']:.0f}",
                    f"{stamp['peak_mb']} MB",
                    nodes.inline(text=stamp["date"], classes=["nowrap"]),
                    versions,
                    nodes.literal(text=stamp["code_hash"][:8]),
                )
            )
        return result


class Syllabus(GeneratedTable):
    """Weeks or days of a course. The page says what happens in each; chapters' names and times are the notebooks'.

    The content is a YAML list of entries with `when`, `chapters` (their numbers), `goals`, `together` and `home`. A
    chapter that is not written yet is left out, and so is an entry that has none.
    """

    has_content = True
    headings = ("", "Chapters, hours to read", "Learning goals", "Together", "At home")

    def rows(self) -> list[Row]:
        """One row for each entry."""
        there = {name[:2]: (name, opening(notebook)) for name, notebook in chapters(self.root()).items()}
        result: list[Row] = []
        for entry in yaml.safe_load("\n".join(self.content)):
            named = [there[number] for number in entry["chapters"].split() if number in there]
            if not named:
                continue
            hours = [reading_hours(head["time"]) for _, head in named]
            cell = nodes.inline()
            for (name, head), time in zip(named, hours, strict=True):
                before = nodes.Text("; " if cell.children else "")
                cell += [before, self.link(name, f"{name[:2]} {head['title']}"), nodes.Text(f", {in_hours(time)}")]
            if len(named) > 1:
                cell += nodes.Text(f"; in all {in_hours(sum(hours))}")
            result.append((str(entry["when"]), cell, entry["goals"], entry["together"], entry["home"]))
        return result


class ProblemSets(GeneratedTable):
    """The problem sets, from the teacher's notebooks: points, and who gives them."""

    empty = "There is no problem set yet."
    headings = ("Set", "Time", "Test cells", "Points by tests", "Points by hand", "Student version")

    def rows(self) -> list[Row]:
        """One row for each set."""
        result: list[Row] = []
        for path in sorted((self.root() / "assignments" / "source").glob("*/*.ipynb")):
            self.env.note_dependency(str(path))
            notebook = json.loads(path.read_text(encoding="utf-8"))
            graded = [(cell["cell_type"], cell["metadata"].get("nbgrader", {})) for cell in notebook["cells"]]
            tests, answers = (
                [meta["points"] for cell_type, meta in graded if cell_type == kind and meta.get("grade")]
                for kind in ("code", "markdown")
            )
            head, page = opening(notebook), f"assignments/release/{path.stem}/{path.stem}"
            where: nodes.Node = nodes.literal(text=f"{page}.ipynb")
            if page in self.env.found_docs:
                uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
                where = nodes.reference("", path.stem, refuri=uri, internal=True)
            time = head["time"].partition(";")[0].rstrip(".")
            result.append((head["title"], time, str(len(tests)), f"{sum(tests):g}", f"{sum(answers):g}", where))
        return result


def grading_time(record: dict[str, Any] | None) -> str:
    """How long a class waits for its grades, from what `benchmarks/grading.py` wrote down, as a sentence in Markdown.

    >>> grading_time(None)
    'How long grading takes has not been written down yet; `python benchmarks/grading.py` measures it.'
    """
    if record is None:
        return "How long grading takes has not been written down yet; `python benchmarks/grading.py` measures it."
    how_many = f"{record['submissions']} submissions of {record['set']} took {record['seconds']:.0f} seconds"
    where = f"measured on {record['date']} by `{record['command']}` on {record['hardware']}"
    return f"{how_many}, {record['jobs']} at a time: {where}, and kept in `benchmarks/results/grading.json`."


class GradingTime(SphinxDirective):
    """The sentence of `grading_time`."""

    def run(self) -> list[nodes.Node]:
        """One paragraph."""
        path = Path(self.env.srcdir) / "benchmarks" / "results" / "grading.json"
        self.env.note_dependency(str(path))
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return [nodes.paragraph("", "", *self.parse_inline(grading_time(record))[0])]


class DataTable(GeneratedTable):
    """Every downloaded data set: its task, size, terms and whom to cite."""

    headings = ("Name", "Task", "Size", "Terms", "Cite")

    def rows(self) -> list[Row]:
        """One row for each data set."""
        source = self.root() / "lmtl_course" / "datasets.json"
        self.env.note_dependency(str(source))
        result: list[Row] = []
        for name, facts in json.loads(source.read_text(encoding="utf-8")).items():
            sizes = [file["bytes"] for file in facts["files"]]
            size = f"{sum(sizes) / 1e6:.1f} MB" if None not in sizes else "?"
            doubt = "In doubt: " if facts["licence_status"] == "doubt" else ""
            terms, citation = nodes.Text(doubt + facts["licence"]), nodes.Text(facts["citation"])
            result.append((nodes.literal(text=name), facts["task"], size, terms, citation))
        return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"  # relative to _static
    app.add_directive("chapter-table", ChapterTable)
    app.add_directive("chapter-status", ChapterStatus)
    app.add_directive("data-table", DataTable)
    app.add_directive("syllabus", Syllabus)
    app.add_directive("problem-sets", ProblemSets)
    app.add_directive("grading-time", GradingTime)
    app.connect("doctree-read", keep_equations_as_written)
    app.connect("doctree-read", give_figures_their_alt_text)
    app.connect("html-page-context", add_kaggle_button, priority=900)  # after the theme has made its groups
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
