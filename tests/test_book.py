"""The built book holds together: nothing is loaded from elsewhere, no link is dead, every figure speaks, formulas set.

`make test` builds the book first. Without `_build/html` the checks of the built pages are skipped.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes

from tools import book_extension

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
LISTED = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WRITTEN = {name: (ROOT / f"{name}.md").read_text(encoding="utf-8") for name in LISTED if (ROOT / f"{name}.md").exists()}
WITH_FORMULAS = [name for name in LISTED if name not in WRITTEN or "$" in WRITTEN[name]]  # notebooks, and some pages
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

built = pytest.mark.skipif(not (HTML / "index.html").exists(), reason="the book is not built; `make book` builds it")


@cache
def page(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def pages() -> list[str]:
    return [*LISTED, "genindex", "search"]  # older builds may have left others behind


# ------------------------------------------------------------------------------------------------------- the contents


def test_every_notebook_is_in_the_contents_and_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        assert f"notebooks/{name}" in LISTED, f"add notebooks/{name} to _toc.yml"
        assert f"notebooks/{name}.ipynb" in readme, f"add {name} to the table in README.md"
    assert [name for name in LISTED if name.startswith("notebooks/")] == [f"notebooks/{name}" for name in NOTEBOOKS]


@built
@pytest.mark.parametrize("name", LISTED)
def test_every_page_of_the_contents_is_built_with_a_title(name):
    assert (HTML / f"{name}.html").exists()
    assert len(page(name).find_all("h1")) >= 1
    assert page(name).html["lang"] == "en"


@built
def test_the_tables_made_from_notebooks_and_data_name_each_of_them():
    contents, status, table = (page(name).find("article") for name in ("index", "book/status", "book/data"))
    for name in NOTEBOOKS:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert contents.find("a", href=f"notebooks/{name}.html"), f"{name} is not on the first page"
        row = status.find("a", href=f"../notebooks/{name}.html").find_parent("tr").get_text(" ")
        stamp = notebook["metadata"]["lmtl"]
        assert stamp["date"] in row
        assert stamp["code_hash"][:8] in row
        assert str(stamp["peak_mb"]) in row
    for name in json.loads((ROOT / "lmtl_course" / "datasets.json").read_text(encoding="utf-8")):
        assert table.find("span", class_="pre", string=name), f"{name} is not in the table of data sets"


# --------------------------------------------------------------------------------------- nothing comes from elsewhere


def loaded_addresses(soup: BeautifulSoup) -> list[str]:
    """Every address that a browser fetches by itself while it shows a page."""
    found = [tag[key] for key in ("src", "data", "poster") for tag in soup.find_all(attrs={key: True})]
    found += [part.split()[0] for tag in soup.find_all(srcset=True) for part in tag["srcset"].split(",")]
    passive = {"canonical", "next", "prev", "index", "search", "author", "license", "alternate", "help"}
    found += [tag["href"] for tag in soup.find_all("link", href=True) if not set(tag.get("rel", [])) <= passive]
    for text in [tag["style"] for tag in soup.find_all(style=True)] + [tag.text for tag in soup.find_all("style")]:
        found += addresses_in_css(text)
    return found


def addresses_in_css(text: str) -> list[str]:
    urls = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
    return urls + re.findall(r"@import\s+['\"]([^'\"]+)", text)


def is_remote(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme not in ("", "data")


def test_the_reader_of_pages_sees_every_way_to_load_something():
    soup = BeautifulSoup(
        '<script src="https://a/x.js"></script><link rel="stylesheet" href="//b/x.css"><img srcset="https://c/1 1x">'
        '<p style="background: url(http://d/x)"></p><style>@import "https://e/x.css";</style><iframe src="https://f">'
        '</iframe><a href="https://g">fine</a><link rel="canonical" href="https://h">',
        "html.parser",
    )
    hosts = {re.sub(r"^(https?:)?//", "", address)[0] for address in loaded_addresses(soup) if is_remote(address)}
    assert hosts == set("abcdef")


@built
def test_no_page_and_no_style_sheet_loads_anything_from_elsewhere():
    for name in pages():
        remote = [address for address in loaded_addresses(page(name)) if is_remote(address)]
        assert not remote, f"{name}: {remote}"
    for path in HTML.rglob("*.css"):
        remote = [address for address in addresses_in_css(path.read_text(encoding="utf-8")) if is_remote(address)]
        assert not remote, f"{path.relative_to(HTML)}: {remote}"


@built
def test_scripts_name_no_content_network():
    paths = [HTML / f"{name}.html" for name in pages()] + list((HTML / "_static").glob("*.js"))
    for path in paths:
        hosts = re.findall(r"(?:unpkg\.com|jsdelivr\.net|cdnjs\.cloudflare\.com)[^\"'\s]*", path.read_text("utf-8"))
        assert not hosts, f"{path.relative_to(HTML)}: {hosts}"


@built
def test_everything_that_a_page_loads_is_there():
    for name in pages():
        for address in loaded_addresses(page(name)):
            if not is_remote(address) and not address.startswith("data:"):
                target = (HTML / name).parent / unquote(urlsplit(address).path)
                assert target.exists(), f"{name} loads {address}, which is not there"


# ------------------------------------------------------------------------------------------------------------- links


@cache
def anchors(name: str) -> frozenset[str]:
    return frozenset(tag["id"] for tag in page(name).find_all(id=True))


@built
def test_every_link_inside_the_book_leads_somewhere():
    count = 0
    for name in pages():
        for tag in page(name).find_all("a", href=True):
            parts = urlsplit(tag["href"])
            if parts.scheme or parts.netloc or not tag["href"].strip("#"):
                continue
            target = (HTML / f"{name}.html").parent / unquote(parts.path) if parts.path else HTML / f"{name}.html"
            assert target.exists(), f"{name} links to {tag['href']}"
            if parts.fragment and target.suffix == ".html":
                other = Path(os.path.normpath(target)).relative_to(HTML).with_suffix("").as_posix()
                assert unquote(parts.fragment) in anchors(other), f"{name} links to {tag['href']}"
            count += 1
    assert count > 10 * len(LISTED)


REPOSITORY = re.escape(CONFIG["repository"]["url"].removeprefix("https://github.com/"))
BRANCH = re.escape(CONFIG["repository"]["branch"])
IN_REPOSITORY = re.compile(
    rf"https://(?:github\.com/{REPOSITORY}/(?:blob|raw|tree|edit)/{BRANCH}/"
    rf"|colab\.research\.google\.com/github/{REPOSITORY}/blob/{BRANCH}/"
    rf"|kaggle\.com/kernels/welcome\?src=https://github\.com/{REPOSITORY}/blob/{BRANCH}/"
    rf"|mybinder\.org/v2/gh/{REPOSITORY}/{BRANCH}\?urlpath=lab/tree/)"
    r"(?P<path>[^?#]+)"
)
SERVICES = ("colab.research.google.com", "kaggle.com", "mybinder.org")


@built
def test_buttons_and_links_into_the_repository_point_at_existing_paths():
    checked = 0
    for name in pages():
        for tag in page(name).find_all("a", href=True):
            match = IN_REPOSITORY.match(tag["href"])
            service = urlsplit(tag["href"]).netloc in SERVICES
            assert match or not service, f"{name}: {tag['href']} does not lead into {CONFIG['repository']['url']}"
            if match:
                assert (ROOT / unquote(match["path"])).exists(), f"{name}: {tag['href']}"
                checked += 1
    assert checked >= 6 * len(NOTEBOOKS)


@built
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_has_its_three_launch_buttons(name):
    menu = page(f"notebooks/{name}").find("div", class_="dropdown-launch-buttons")
    links = {urlsplit(tag["href"]).netloc: tag["href"] for tag in menu.find_all("a")}
    assert set(links) == set(SERVICES)
    assert all(f"notebooks/{name}.ipynb" in link for link in links.values())


# ---------------------------------------------------------------------------------------------- figures, search, dark


@built
def test_every_image_has_alt_text():
    for name in pages():
        for image in page(name).find_all("img"):
            decorative = "logo__image" in image.get("class", [])  # the title stands beside it
            assert image.get("alt", "").strip() or decorative, f"{name}: {image['src']} has no alt text"


@built
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_keep_the_alt_text_that_the_notebook_stores(name):
    source = ROOT / "notebooks" / f"{name}.ipynb"
    stored = book_extension.stored_alt_texts(source, source.stat().st_mtime)
    shown = {Path(image["src"]).stem: image["alt"] for image in page(f"notebooks/{name}").select(".cell_output img")}
    assert shown == stored


@built
def test_the_search_index_knows_every_page_and_its_words():
    text = (HTML / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    assert set(LISTED) <= set(index["docnames"])
    assert "perplex" in index["terms"], "the stem of 'perplexity' is not in the search index"


@built
@pytest.mark.parametrize("name", LISTED)
def test_every_page_has_the_switch_for_dark_mode(name):
    assert page(name).find("button", class_="theme-switch-button")
    assert 'html[data-theme="dark"]' in (HTML / "_static" / "pygments.css").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ formulas


@built
def test_pages_with_formulas_load_mathjax_from_the_book_with_all_its_fonts():
    fonts = {path.name for path in (HTML / "_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff")}
    assert {"MathJax_Main-Regular.woff", "MathJax_Math-Italic.woff", "MathJax_AMS-Regular.woff"} <= fonts
    with_formulas = [name for name in pages() if page(name).find(class_="math")]
    assert "book/notation" in with_formulas
    for name in with_formulas:
        scripts = [tag["src"] for tag in page(name).find_all("script", src=True) if "mathjax" in tag["src"]]
        assert len(scripts) == 1, f"{name} loads {scripts}"
        assert ((HTML / name).parent / urlsplit(scripts[0]).path).exists()


@built
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_numbered_equations_reach_the_page_as_the_notebook_has_them(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    markdown = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    markdown = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
    tags = re.findall(r"\\tag\{([\d.]+)\}", markdown)
    blocks = [block.text for block in page(f"notebooks/{name}").select("div.math")]
    shown = [tag for block in blocks for tag in re.findall(r"\\tag\{([\d.]+)\}", block)]
    assert shown == tags
    assert len(set(tags)) == len(tags), "two equations with one number"
    assert not any("\\begin{split}" in block for block in blocks if "\\tag" in block)


@built
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to set the formulas")
@pytest.mark.parametrize("name", WITH_FORMULAS)
def test_a_browser_sets_every_formula_and_asks_no_other_host(name, tmp_path):
    """Open the page in a real browser: no formula ends in an error, and nothing outside the folder is asked for."""
    log = tmp_path / "net.json"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-extensions", "--virtual-time-budget=20000"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--dump-dom"]
    address = (HTML / f"{name}.html").as_uri()
    done = subprocess.run([str(CHROMIUM), *flags, address], capture_output=True, text=True, timeout=240, check=True)
    soup = BeautifulSoup(done.stdout, "html.parser")
    formulas = soup.find_all(class_="math")
    unknown_command = 'mjx-container [style*="color: red"]'  # MathJax writes it out in red and goes on
    failed = soup.select(f"mjx-merror, [data-mjx-error], {unknown_command}")
    assert not failed, [tag.get("data-mjx-error") or str(tag) for tag in failed]
    for formula in formulas:
        assert formula.find("mjx-container"), f"not set: {formula.text[:80]}"
    asked = re.findall(r'"url":"([^"]+)"', log.read_text(encoding="utf-8"))
    hosts = {urlsplit(address).netloc for address in asked if address.startswith("http")}
    assert not hosts & urls_of_the_page(soup), f"the page asks {hosts}"


def urls_of_the_page(soup: BeautifulSoup) -> set[str]:
    """Hosts that the page names anywhere; the browser's own errands (its update server) are not among them."""
    hosts = {urlsplit(tag[key]).netloc for key in ("href", "src") for tag in soup.find_all(attrs={key: True})}
    scripts = " ".join(tag.text for tag in soup.find_all("script"))
    return (hosts | {urlsplit(url).netloc for url in re.findall(r"https?://[^\s\"'`\\]+", scripts)}) - {""}


# --------------------------------------------------------------------------------------------------- the extension


def test_alt_text_is_found_by_the_hash_of_the_image(tmp_path):
    image = b"not really a picture"
    output = {
        "data": {"image/png": base64.b64encode(image).decode()},
        "metadata": {"image/png": {"alt": "A line that falls."}},
    }
    path = tmp_path / "07_sample.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, {"outputs": [output]}]}))
    texts = book_extension.stored_alt_texts(path, 0.0)
    assert texts == {hashlib.sha256(image).hexdigest(): "A line that falls."}


def test_a_chapter_opens_with_its_goals():
    first = (
        "# 07 · Attention\n\n[badge](x)\n\n**You will be able to** look.\n\n**You need** eyes.\n\n**Time:** a minute"
    )
    cells = [{"source": first.splitlines(keepends=True)}]
    expected = {"title": "Attention", "able": "look.", "need": "eyes.", "time": "a minute"}
    assert book_extension.opening({"cells": cells}) == expected


def test_display_formulas_are_handed_over_unwrapped():
    document = nodes.document(None, None)
    plain, labelled = nodes.math_block("", r"a \\ b \tag{5.1}"), nodes.math_block("", "c", label="x")
    document += [plain, labelled]
    book_extension.keep_equations_as_written(SimpleNamespace(builder=SimpleNamespace(format="html")), document)
    assert plain.astext() == r"\[a \\ b \tag{5.1}\]"
    assert plain["nowrap"]
    assert labelled.astext() == "c", "Sphinx numbers labelled equations itself"


def test_kaggle_joins_the_launch_buttons_and_only_those():
    options = {"repository_url": "https://github.com/o/r", "repository_branch": "b"}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options))
    launch, download = {"label": "launch-buttons", "buttons": []}, {"label": "download-buttons", "buttons": []}
    context = {"header_buttons": [launch, download]}
    book_extension.add_kaggle_button(app, "notebooks/07_x", "page.html", context, None)
    expected = "https://kaggle.com/kernels/welcome?src=https://github.com/o/r/blob/b/notebooks/07_x.ipynb"
    assert [button["url"] for button in launch["buttons"]] == [expected]
    assert download["buttons"] == []


def test_a_missing_mathjax_package_is_named(monkeypatch):
    monkeypatch.setattr(book_extension, "MATHJAX_PACKAGE", "no-such-mathjax")
    with pytest.raises(Exception, match="pip install no-such-mathjax"):
        book_extension.mathjax_files()
