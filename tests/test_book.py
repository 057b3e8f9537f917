"""The built book holds together: nothing is loaded from elsewhere, no link is dead, every figure speaks, formulas set.

`make test` builds the book first. Without `_build/html` the checks of the built pages are skipped.
"""

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.errors import ExtensionError

from tools import book_extension
from tools.classroom.sandbox import Limits
from tools.classroom.sets import read_set
from tools.classroom.submissions import MAX_BYTES

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


# ------------------------------------------------------------------------------------------------- pages for a course

FOR_A_COURSE = ("book/teaching", "book/students")


def syllabus(number: int) -> list[dict[str, str]]:
    """The entries of a plan on the teachers' page, as the page has them."""
    plans = re.findall(r"```\{syllabus\}\n(.*?)```", WRITTEN["book/teaching"], flags=re.DOTALL)
    return yaml.safe_load(plans[number])


def test_the_ten_weeks_hold_every_chapter_once_and_in_an_order_that_can_be_read():
    weeks = syllabus(0)
    assert [week["when"] for week in weeks] == list(range(1, 11))
    planned = [number for week in weeks for number in week["chapters"].split()]
    assert len(set(planned)) == len(planned), "a chapter stands in two weeks"
    assert {name[:2] for name in NOTEBOOKS} <= set(planned), "a chapter is in no week"
    for week in weeks:
        hours = [reading_time(name) for name in NOTEBOOKS if name[:2] in week["chapters"].split()]
        assert sum(hours) <= 4, f"week {week['when']} has {sum(hours)} hours of reading"
    for earlier, later in itertools.pairwise(["01", "02", "03", "04", "05", "06", "07", "08", "09", "11", "12"]):
        assert planned.index(earlier) < planned.index(later)


def test_a_day_of_the_workshop_can_be_read_in_a_day():
    days = syllabus(1)
    assert [day["when"] for day in days] == [1, 2, 3]
    for day in days:
        numbers = day["chapters"].split()
        names = [name for name in NOTEBOOKS if name[:2] in numbers]
        assert len(names) == len(numbers)
        assert sum(map(reading_time, names)) <= 4


def reading_time(name: str) -> float:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return book_extension.reading_hours(book_extension.opening(notebook)["time"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_chapter_says_how_long_it_takes_to_read(name):
    assert reading_time(name) in book_extension.HOURS.values()


def test_a_time_line_that_says_nothing_is_refused_and_half_hours_are_shown():
    with pytest.raises(ExtensionError, match="some time or other"):
        book_extension.reading_hours("some time or other")
    told = {"half an hour": 0.5, "an hour": 1, "about an hour and a half": 1.5, "about two hours": 2, "three hours": 3}
    assert {time: book_extension.reading_hours(f"{time} to read; a minute to run") for time in told} == told
    assert book_extension.reading_hours("about two and a half hours to read with a pencil; a minute to run") == 2.5
    assert [book_extension.in_hours(hours) for hours in (0.5, 1.0, 2.5)] == ["½ h", "1 h", "2½ h"]


@built
def test_the_plans_show_the_times_that_the_chapters_give():
    plans = page("book/teaching").select("table.generated-table")[:2]
    for table, entries in zip(plans, (syllabus(0), syllabus(1)), strict=True):
        rows = {row.find("td").get_text(strip=True): row for row in table.select("tbody tr")}
        for entry in entries:
            names = [name for name in NOTEBOOKS if name[:2] in entry["chapters"].split()]
            if not names:
                assert str(entry["when"]) not in rows, "an entry without a chapter is left out"
                continue
            cell = rows[str(entry["when"])].find_all("td")[1]
            assert [link["href"] for link in cell.find_all("a")] == [f"../notebooks/{name}.html" for name in names]
            shown = re.findall(r"[\d½]+ h", cell.get_text(" "))
            hours = [reading_time(name) for name in names]
            hours += [sum(hours)] if len(hours) > 1 else []
            assert shown == [book_extension.in_hours(time) for time in hours]


@built
def test_the_table_of_problem_sets_adds_up_the_points_of_the_sources():
    table = page("book/teaching").select("table.generated-table")[2:]
    sources = sorted((ROOT / "assignments" / "source").glob("*/*.ipynb"))
    rows = table[0].select("tbody tr") if table else []
    assert len(rows) == len(sources)
    for row, source in zip(rows, sources, strict=True):
        problems = read_set(source)
        cells = [cell.get_text(" ", strip=True) for cell in row.find_all("td")]
        assert cells[2] == str(len(problems.of("test")))
        assert float(cells[3]) == sum(cell.points for cell in problems.of("test"))
        assert float(cells[4]) == sum(cell.points for cell in problems.of("written"))
        assert source.stem in cells[5]


def test_the_time_of_grading_is_the_measured_one():
    record = {"submissions": 30, "set": "ps1", "seconds": 123.4, "jobs": 2, "date": "2026-01-02", "command": "python x"}
    sentence = book_extension.grading_time(record | {"hardware": "a processor, 2 threads"})
    assert sentence.startswith(
        "30 submissions of ps1 took 123 seconds, 2 at a time: measured on 2026-01-02 by `python x`"
    )
    assert "a processor, 2 threads" in sentence
    assert "```{grading-time}" in WRITTEN["book/teaching"]


@built
def test_the_teachers_page_shows_the_time_of_grading():
    path = ROOT / "benchmarks" / "results" / "grading.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    text = " ".join(page("book/teaching").find("article").get_text().split())
    assert book_extension.grading_time(record).replace("`", "") in text


@pytest.mark.parametrize("name", FOR_A_COURSE)
def test_the_commands_on_the_pages_for_a_course_exist(name):
    text = WRITTEN[name]
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()] + spans
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [command.split()[1] for command in commands if command.startswith("make ")]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"the Makefile has no target {target}"
    for command in commands:
        if match := re.match(r"python -m (lmtl_course|tools\.classroom) (.+)", command):
            words = match[2].split()
            verbs = tuple(itertools.takewhile(re.compile(r"[a-z]+").fullmatch, words))
            help_text = asked_for_help(match[1], *verbs)
            for option in (word for word in words if word.startswith("--")):
                assert option in help_text, f"{match[1]} {' '.join(verbs)} has no {option}"
    if name == "book/teaching":
        assert {"assignments", "grade"} <= set(targets)
        for option in re.findall(r"--unsafe|--with|--source", text):
            assert option in asked_for_help("tools.classroom", "grade") + asked_for_help("tools.classroom", "try")
    for path in re.findall(r"assignments/[\w/.]+", text):
        assert (ROOT / path.rstrip(".")).exists() or "NAME" in path, f"{path} is not there"


@cache
def asked_for_help(module: str, *verbs: str) -> str:
    """What a command of ours says about itself."""
    command = [sys.executable, "-m", module, *verbs, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{module} has no {' '.join(verbs)}: {done.stderr[-200:]}"
    return done.stdout


def test_the_pages_for_a_course_give_the_limits_of_the_sandbox():
    limits = Limits()
    told = {
        f"{limits.memory >> 30} GB of memory",
        f"{limits.disk >> 20} MB of files",
        f"{limits.output >> 20} MB of printed text",
        f"{limits.processes} processes",
        f"{limits.call:g} seconds for one call of a function",
        f"{limits.cell:g} for a cell",
        f"{limits.total / 60:g} minutes for a submission",
        f"notebooks over {MAX_BYTES // 10**6} MB",
    }
    assert {part for part in told if part not in WRITTEN["book/teaching"]} == set()
    for_students = WRITTEN["book/students"]
    assert f"{limits.call:g} seconds for one call of a function and {limits.cell:g} for a cell" in for_students
    assert f"It may have {MAX_BYTES // 10**6} MB" in for_students


def test_the_reports_that_the_teachers_page_names_are_those_that_grading_writes():
    named = set(re.findall(r"`ps1/(\w+\.\w+)`", WRITTEN["book/teaching"]))
    source = (ROOT / "tools" / "classroom" / "reports.py").read_text(encoding="utf-8")
    assert named == set(re.findall(r'out / "(\w+\.\w+)"', source))


def test_every_reason_that_the_students_page_explains_is_one_that_grading_gives():
    explained = re.findall(r"^\| \*([^*]+)\*", WRITTEN["book/students"], flags=re.MULTILINE)
    parts = ("grading", "submissions")
    code = "".join((ROOT / "tools" / "classroom" / f"{part}.py").read_text(encoding="utf-8") for part in parts)
    for reason in explained:
        for part in (part.strip() for part in reason.split("…")):
            assert part in code, f"grading never says {part!r}"
    assert len(explained) >= 6


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
