"""Put words, figures, style and script into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from boundnas.report.content import class_table, figures, notes, summary
from boundnas.report.latency import (
    measured_note,
    measured_table,
    table_doubt,
    table_note,
    validation_picture,
)
from boundnas.report.records import RunRecords, read_run
from boundnas.store.files import write_text
from boundnas.store.held import HeldFolder
from boundnas.store.times import LATENCY


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder: the front, the boundaries, the training.

    The page is one file that never touches the network and shows what is there: a run that has
    been trained but not searched has a report too. The same run gives the same bytes.

    Args:
        folder: The run folder. Needs ``space.json`` and ``metrics.jsonl``.

    Returns:
        The path of the report. It is complete or, after an interruption, the one before.

    Raises:
        RunError: A needed file is missing or a file is damaged, or the report cannot be written.
    """
    path = folder / "report.html"
    write_text(path, render(read_run(folder)), HeldFolder(folder))
    return path


def render(run: RunRecords) -> str:
    """The report of ``run`` as HTML. All that comes from the run's files is inert text in it."""
    script = _part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = {
        "title": run.name,
        "summary": summary(run),
        "config": run.config or "",
        **{f"{section}_note": text for section, text in notes(run).items()},
    }
    return Template(_part("template.html")).substitute(
        {name: escape(text) for name, text in words.items()},
        environment="".join(
            f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>"
            for key, value in (run.environment or {}).items()
        ),
        classes=_table(class_table(run)),
        **_latency(run),
        data=_embedded(figures(run)),
        style=_part("report.css"),
        script=script,
        script_digest=digest,
    )


def _latency(run: RunRecords) -> dict[str, str]:
    """The section about latency and the link to it; nothing where nothing is known of it."""
    rows, table = measured_table(run), run.table
    predicted = table is not None or (run.front is not None and LATENCY in run.front.ranges)
    if not rows and not predicted:
        return {"latency": "", "latency_link": ""}
    parts = ['<section id="latency">', "<h2>Latency</h2>"]
    parts += [] if table is None else [_note(table_note(table))]
    if predicted:
        parts += [_note(table_doubt(table, run.times.values()), "warning note")]
    if table is not None and (held := table.validation) is not None:
        parts += [f"<figure>{validation_picture(held.networks)}</figure>"]
    parts += [_note(measured_note(run)), _table(rows), "</section>"]
    return {
        "latency": "\n".join(filter(None, parts)),
        "latency_link": '<a href="#latency">Latency</a> ',
    }


def _note(text: str, kind: str = "note") -> str:
    """A paragraph; nothing of no text."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts, the first of them the head, as a table; nothing of none."""
    if not rows:
        return ""

    def row(cells: Sequence[str], kind: str) -> str:
        first, *rest = (escape(cell) for cell in cells)
        inner = "".join(f"<{kind}>{cell}</{kind}>" for cell in rest)
        return f'<tr><th scope="{"col" if kind == "th" else "row"}">{first}</th>{inner}</tr>'

    head, *body = rows
    return (
        f'<div class="scroll"><table class="classes"><thead>{row(head, "th")}</thead><tbody>'
        f"{''.join(row(cells, 'td') for cells in body)}</tbody></table></div>"
    )


def _part(name: str) -> str:
    return files("boundnas.report").joinpath(name).read_text(encoding="utf-8")


def _embedded(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
