"""The page that coverage.py writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]

COLUMNS = {
    "converts": "converts",
    "largest": "max = original",
    "extract": "extraction",
    "fit": "a step",
    "onnx": "ONNX",
}
"""Checks, and their heads."""

HEAD = """# Networks that nobody here wrote

What `bn.elasticize` makes of networks of other libraries, with random weights, on small images
where a network allows it. Written by `python -m benchmarks.coverage`; the figures, with the state
of the code and the time of each, are in [coverage.json](coverage.json).

- **converts**: a supernet comes out, and the shapes of its smallest and largest network and of
  every corner in one dimension fit.
- **MACs searched**: the part of the multiply-accumulates in layers that some dimension changes.
- **dimensions**: how many widths (w), kernels (k), depths (d) and others.
- **max = original**: the largest architecture, with the statistics it came with, equals the network
  bit for bit, or to rounding where PyTorch's attention, gates, instance norms or norms by hand are
  computed otherwise; `elasticize` itself refuses what does not.
- **extraction**: the smallest and the largest network, extracted, equal their slices of the
  supernet bit for bit; MACs and parameters are those counted on them.
- **a step**: one step of `fit` with both boundaries learned, after all that is checked before it.
- **ONNX**: the smallest network is exported, and the file compared with the network.
"""


def table(rows: dict[str, Row]) -> str:
    """The whole page, in Markdown."""
    libraries = dict.fromkeys(row["library"] for row in rows.values())
    parts = [HEAD, _states(rows.values()), _summary(rows.values(), libraries)]
    for library in libraries:
        found = sorted(
            (r for r in rows.values() if r["library"] == library), key=lambda r: r["name"]
        )
        parts.append(_library(library, found))
    return "\n".join(parts)


def _states(rows: Iterable[Row]) -> str:
    """Which state of the code how many rows are of, and when they were made."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["commit"], []).append(row["date"])
    states = sorted(found.items(), key=lambda item: max(item[1]))
    lines = [f"- `{c}`, {min(d)} to {max(d)[-5:]} UTC: {len(d)}" for c, d in states]
    return "\n".join(["Networks by the state of the code that they were tried with:\n", *lines, ""])


def passes(row: Row) -> bool:
    """Whether a network passes every column, with four fifths of its MACs searched."""
    return all(row.get(c) == "yes" for c in COLUMNS) and row.get("share", 0) >= 0.8


def _summary(rows: Iterable[Row], libraries: Iterable[str]) -> str:
    lines = [
        "| library | networks | " + " | ".join(COLUMNS.values()) + " | ≥ 80 % searched | all |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for library in libraries:
        here = [r for r in rows if r["library"] == library]
        counts = [sum(r.get(c) == "yes" for r in here) for c in COLUMNS]
        shares = sum(r.get("share", 0) >= 0.8 for r in here)
        numbers = [len(here), *counts, shares, sum(map(passes, here))]
        lines.append(f"| {library} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines) + "\n"


def _library(library: str, rows: list[Row]) -> str:
    lines = [
        f"## {library}\n",
        "| network | input | converts | MACs searched | dimensions | "
        + " | ".join(list(COLUMNS.values())[1:])
        + " |",
        "|---" * (4 + len(COLUMNS)) + "|",
        *map(_line, rows),
        "",
        *_reasons(rows),
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    shape = "x".join(map(str, row["shape"]))
    share = f"{row['share']:.0%}" if "share" in row else "-"
    dimensions = " ".join(f"{n}{kind[0]}" for kind, n in row.get("dimensions", {}).items())
    marks = [_mark(row, c) for c in list(COLUMNS)[1:]]
    cells = [row["name"], shape, _mark(row, "converts"), share, dimensions or "-", *marks]
    return "| " + " | ".join(cells) + " |"


def _mark(row: Row, check: str) -> str:
    if check not in row:
        return "-" if row.get("converts") != "yes" else "not tried"
    return "yes" if row[check] == "yes" else "**no**"


def _reasons(rows: list[Row]) -> list[str]:
    """A line for each network that does not pass, with why."""
    lines = []
    for row in rows:
        failed = [
            f"{head}: {_short(row[c])}" for c, head in COLUMNS.items() if row.get(c, "yes") != "yes"
        ]
        if row.get("share", 1) < 0.8 and row.get("fixed"):
            failed.append(f"{row['share']:.0%} searched: " + _short("; ".join(row["fixed"])))
        if failed:
            lines.append(f"- `{row['name']}` " + " · ".join(failed))
    return [*lines, ""] if lines else []


def _short(text: str) -> str:
    """A reason as it fits a line of a page, without markup and places of a machine."""
    words = [w.rpartition("/")[2] if w.startswith(("/", "(/")) else w for w in text.split()]
    text = (
        " ".join(words)
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("_", "\\_")
        .replace("*", "\\*")
    )
    return text if len(text) <= 160 else text[:157] + "…"
