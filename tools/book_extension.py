r"""What the book needs of Sphinx and no installed extension does; registered under `sphinx.local_extensions`.

Maths: MathJax and its fonts are copied out of an installed package into the built book, so that formulas need no
network. Equations: `$$ … \tag{5.1}` reaches the page as the notebook has it. Figures: the alt text that a notebook
stores with an image reaches the page. Buttons: Kaggle stands beside Binder and Colab. Tables: `chapter-table` and
`chapter-status` are made from the notebooks and `data-table` from the table of data sets: none can go out of date.
"""

import hashlib
import json
import re
from binascii import a2b_base64
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

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
    app.connect("doctree-read", keep_equations_as_written)
    app.connect("doctree-read", give_figures_their_alt_text)
    app.connect("html-page-context", add_kaggle_button, priority=900)  # after the theme has made its groups
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
