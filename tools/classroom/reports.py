"""What people read after grading: grades for the platform, a sheet for written answers, feedback, a class summary.

Names, answers and error messages come from students: tables defuse what a spreadsheet would take for a formula, pages
escape everything and forbid scripts.
"""

import base64
import csv
import io
import statistics
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from lmtl_course.checkpoint import write_whole
from tools.classroom.sets import ProblemSet

Results = list[dict[str, Any]]
SHEET = ["key", "name", "cell", "of", "points", "comment", "answer", "rubric", "note"]
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} caption {{ text-align: left; font-weight: bold; padding: .5rem 0 }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ccc }}
td {{ white-space: pre-wrap; overflow-wrap: anywhere }} .number {{ text-align: right; white-space: nowrap }}
img {{ max-width: 100% }}
</style></head><body><main><h1>{title}</h1>
{body}
</main></body></html>
"""


def write_reports(out: Path, problems: ProblemSet, results: Results) -> list[str]:
    """Write all reports of one set into a folder, and merge the points that a teacher entered in `written.csv`.

    Args:
        out: `grades.csv`, `written.csv`, `summary.html`, `feedback/` and, where names tell the numbers of a learning
            platform, `moodle.csv` or `canvas.csv` are written here.
        problems: the set.
        results: as `grading` returns them.

    Returns:
        Sentences for the teacher: what waits to be marked, what could not be graded.

    Raises:
        ValueError: an entry of `written.csv` is no number of points; nothing is written then.
    """
    waiting = merge_written(out / "written.csv", problems, results)
    write_table(out / "grades.csv", grades(results))
    moodle = [row for row in results if row["number"].startswith("Participant ")]
    canvas = [row for row in results if row["number"].isdigit()]
    if moodle:  # the columns of Moodle's offline grading worksheet that its import reads
        head = ["Identifier", "Full name", "Grade", "Maximum grade", "Last modified (grade)", "Feedback comments"]
        rows = [[r["number"], r["name"], final(r), possible(r), "-", escape(r["reason"])] for r in moodle]
        write_table(out / "moodle.csv", [head, *rows])
    if canvas:  # the first columns of Canvas' gradebook; the second row is its own
        head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", problems.name]
        rows = [[r["name"], r["number"], "", "", "", final(r)] for r in canvas]
        write_table(out / "canvas.csv", [head, ["    Points Possible", "", "", "", "", problems.points], *rows])
    for result in results:
        write_whole(out / "feedback" / f"{result['key']}.html", feedback(result, problems).encode("utf-8", "replace"))
    write_whole(out / "summary.html", summary(results, problems).encode("utf-8", "replace"))
    failed = [result["name"] for result in results if result["status"] == "failed"]
    told = [f"{waiting} written answers wait for points in {out / 'written.csv'}"] if waiting else []
    return told + ([f"not graded, run again: {', '.join(failed)}"] if failed else [])


def total(result: dict[str, Any]) -> float:
    """Points so far."""
    return sum(cell["points"] or 0.0 for cell in result["cells"])


def possible(result: dict[str, Any]) -> float:
    """Points that could be had."""
    return sum(cell["of"] for cell in result["cells"])


def is_open(result: dict[str, Any]) -> int:
    """How many written answers wait for points."""
    return sum(cell["points"] is None for cell in result["cells"])


def final(result: dict[str, Any]) -> float | str:
    """The points for a platform: none before all is marked."""
    return "" if is_open(result) or result["status"] == "failed" else total(result)


def share(result: dict[str, Any]) -> float:
    """Points so far in percent."""
    return 100 * total(result) / (possible(result) or 1.0)


# ------------------------------------------------------------------------------------------------------------- tables


def safe(value: Any) -> Any:
    """A cell of a table that no spreadsheet executes: a text that begins like a formula gets an apostrophe.

    >>> safe("=1+1"), safe("Ada"), safe(-2)
    ("'=1+1", 'Ada', -2)
    """
    if isinstance(value, float):
        return f"{value:g}"
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ")[:1] in tuple("=+-@\t\r\n|%") else value


def write_table(path: Path, rows: list[list[Any]]) -> None:
    """Write a CSV file, whole or not at all; with the mark by which Excel knows UTF-8, except for platforms."""
    text = io.StringIO()
    csv.writer(text).writerows([safe(value) if value != "-" else value for value in row] for row in rows)
    mark = "" if path.stem in ("moodle", "canvas") else "\ufeff"
    write_whole(path, (mark + text.getvalue()).encode("utf-8", "replace"))


def grades(results: Results) -> list[list[Any]]:
    """The rows of grades.csv: one for each submission, points by cell at the end."""
    names = list(dict.fromkeys(cell["name"] for result in results for cell in result["cells"]))
    rows: list[list[Any]] = [["name", "number", "points", "of", "percent", "open", "status", "remarks", *names]]
    for result in results:
        points = {cell["name"]: cell["points"] for cell in result["cells"]}
        remarks = "; ".join(filter(None, [result["reason"], *result["notes"]]))
        numbers = [total(result), possible(result), round(share(result), 1), is_open(result)]
        own = ["" if points.get(name) is None else points[name] for name in names]
        rows.append([result["name"], result["number"], *numbers, result["status"], remarks, *own])
    return rows


def merge_written(path: Path, problems: ProblemSet, results: Results) -> int:
    """Take the points that stand in the sheet into the results and write the sheet anew; how many are still open.

    Points stay with an answer as long as it is the same; where a student handed in another one, the sheet says what
    the earlier one had got. Rows of submissions that are not in this run stay.
    """
    before = read_sheet(path)
    rubrics = {cell.name: "\n".join(cell.rubric) for cell in problems.of("written")}
    rows: list[list[Any]] = []
    waiting = 0
    for result in results:
        for cell in result["cells"]:
            if cell["kind"] != "written":
                continue
            old = before.pop((result["key"], cell["name"]), {})
            points, comment, note = cell["points"], old.get("comment", ""), old.get("note", "")
            if old.get("points", "") != "":
                if same(old["answer"], safe(cell["answer"])):
                    points = old["points"]
                else:
                    note, comment = f"an earlier answer had {old['points']:g} points", ""
            cell |= {"points": points, "comment": comment}
            waiting += points is None
            entered = "" if points is None else points
            about = [cell["answer"], rubrics.get(cell["name"], ""), note]
            rows.append([result["key"], result["name"], cell["name"], cell["of"], entered, comment, *about])
    rows += [[old.get(name, "") for name in SHEET] for old in before.values()]
    if rows:
        write_table(path, [SHEET, *rows])
    return waiting


def same(one: str, other: str) -> bool:
    """Whether two texts differ at most in white space, as programs for tables change it."""
    return one.split() == other.split()


def read_sheet(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of written.csv by submission and cell, as a spreadsheet may have saved them; points as numbers."""
    if not path.exists():
        return {}
    body = path.read_bytes()
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = body.decode("cp1252", "replace")
    head = text.split("\n", 1)[0]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    if not set(SHEET) <= set(reader.fieldnames or []):
        raise ValueError(f"{path} lacks a column; it must have {', '.join(SHEET)}")
    for row in reader:
        entry: dict[str, Any] = {name: row[name] or "" for name in SHEET}
        if entry["points"].strip():
            try:
                entry["points"] = float(entry["points"].replace(",", "."))
                good = 0 <= entry["points"] <= float(entry["of"].replace(",", "."))
            except ValueError:
                good = False
            if not good:
                where = f"{path}, {entry['name']}, {entry['cell']}"
                raise ValueError(f"{where}: {entry['points']} is no number of points between 0 and {entry['of']}")
        else:
            entry["points"] = ""
        rows[entry["key"], entry["cell"]] = entry
    return rows


# -------------------------------------------------------------------------------------------------------------- pages


def table(caption: str, head: list[str], rows: list[list[str]], numbers: tuple[int, ...] = ()) -> str:
    """An HTML table of texts, all escaped; `numbers` are the columns that stand to the right."""

    def line(cells: list[str], tag: str) -> str:
        kinds = [' class="number"' if i in numbers else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"<table><caption>{escape(caption)}</caption>\n{line(head, 'th')}\n{body}\n</table>"


def feedback(result: dict[str, Any], problems: ProblemSet) -> str:
    """One student's page: points by cell, with the hint or the reason where points were lost."""
    parts = [f"<p><strong>{total(result):g} of {possible(result):g} points</strong></p>"]
    if is_open(result):
        parts.append("<p>Written answers are not marked yet.</p>")
    parts += [f"<p>{escape(note)}</p>" for note in filter(None, [result["reason"], *result["notes"]])]
    rows = []
    for cell in result["cells"]:
        points = "to be marked" if cell["points"] is None else f"{cell['points']:g} of {cell['of']:g}"
        rows.append(
            [cell["name"], points, cell.get("comment") or cell["reason"] or ("passed" if cell["points"] else "")]
        )
    parts.append(table("Points by cell", ["cell", "points", "what to look at"], rows, numbers=(1,)))
    return PAGE.format(title=escape(f"{problems.name}: {result['name']}"), body="\n".join(parts))


def summary(results: Results, problems: ProblemSet) -> str:
    """The class at a glance: how points are spread, which cells were hard, who needs a look."""
    shares = [share(result) for result in results]
    mean, median = statistics.fmean(shares), statistics.median(shares)
    told = (
        f"{len(results)} submissions; mean {mean:.0f} %, median {median:.0f} %, lowest {min(shares):.0f} %, "
        f"highest {max(shares):.0f} %."
    )
    cells: list[tuple[float, list[str]]] = []
    for cell in problems.of("test", "written"):
        own = [c for result in results for c in result["cells"] if c["name"] == cell.name and c["points"] is not None]
        if own:
            reached = statistics.fmean(c["points"] / c["of"] for c in own)
            reason = Counter(c["reason"] for c in own if c["reason"]).most_common(1)
            often = f"{reason[0][1]} times: {reason[0][0]}" if reason else ""
            cells.append((reached, [cell.name, f"{100 * reached:.0f} %", often]))
    hardest = [row for _, row in sorted(cells, key=lambda entry: entry[0])]
    rows = [
        [
            r["name"],
            f"{total(r):g}",
            str(is_open(r) or ""),
            r["status"],
            "; ".join([r["reason"], *r["notes"]]).strip("; "),
        ]
        for r in results
    ]
    body = [
        f"<p>{told}</p>",
        f'<img src="data:image/png;base64,{histogram(shares)}" alt="{escape(alt_text(shares))}">',
        table("Cells, the hardest first", ["cell", "points reached", "most frequent reason"], hardest, numbers=(1,)),
        table(
            "Submissions", ["name", f"points of {problems.points:g}", "open", "status", "remarks"], rows, numbers=(1, 2)
        ),
    ]
    return PAGE.format(title=f"{problems.name}: the class", body="\n".join(body))


def counts(shares: list[float]) -> list[int]:
    """How many stand in each tenth, the last with its upper end."""
    return [sum(min(int(value // 10), 9) == tenth for value in shares) for tenth in range(10)]


def alt_text(shares: list[float]) -> str:
    """The histogram in words."""
    filled = [f"{10 * t} to {10 * t + 10} %: {n}" for t, n in enumerate(counts(shares)) if n]
    return f"Histogram of points in percent. Submissions with {'; '.join(filled)}."


def histogram(shares: list[float]) -> str:
    """The spread of points as a PNG image in base64."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar([10 * tenth + 5 for tenth in range(10)], counts(shares), width=9)
    axes.set(xlabel="points in percent", ylabel="submissions", xlim=(0, 100))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return base64.b64encode(image.getvalue()).decode()
