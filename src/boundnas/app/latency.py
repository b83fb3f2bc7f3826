"""``boundnas latency``: a table of how long the networks of a space take, here or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from boundnas.app.networks import made
from boundnas.app.opening import configuration
from boundnas.config import read_config
from boundnas.cost import Latency, LatencyTable
from boundnas.errors import ConfigError
from boundnas.latency.elsewhere import PROGRAM, collect, write_plan
from boundnas.latency.measuring import measure
from boundnas.report.latency import table_doubt, table_note
from boundnas.store.files import canonical_json, find_bytes, write_text
from boundnas.store.folder import RunFolder
from boundnas.store.times import ms
from boundnas.supernet.supernet import Supernet


def measured(of: Path, out: Path, runtime: str, threads: int, batch: int, minutes: float) -> str:
    """Measure a table here; what there is to say of it.

    Args:
        of: A configuration, or the folder of a run.
        out: Where the table is written.
        runtime: See `boundnas.latency.measure`.
        threads: Likewise.
        batch: Likewise.
        minutes: Likewise.
    """
    model = _model(of)
    table = measure(model, out, runtime, threads, batch, minutes)
    return "\n".join(_said(model, table, out))


def planned(of: Path, folder: Path, batch: int) -> str:
    """Write a plan for another device; what to do with it."""
    plan = write_plan(_model(of), folder, batch)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return (
        f"Wrote {folder}: {len(plan.blocks)} blocks and {len(plan.networks)} networks, {size:,} "
        f"bytes. It needs Python 3.11, numpy and onnxruntime there, and nothing else:\n"
        f"  python {folder / PROGRAM} --threads 1\n"
        f"  boundnas latency {of} --collect {folder}"
    )


def collected(of: Path, folder: Path, out: Path) -> str:
    """Make the table of the times that another device measured; what there is to say of it.

    Raises:
        ConfigError: Another file is in the place of the table.
    """
    model = _model(of)
    table = collect(model, folder)
    text = canonical_json(table.written())
    there = find_bytes(out, error=ConfigError)
    if there is not None and there != text.encode():
        raise ConfigError(f"{out}: is there already; name another file by --out, or move it away")
    write_text(out, text)
    return "\n".join(_said(model, table, out))


def doubt(folder: RunFolder) -> str:
    """A warning where the table of a run in latency should not be relied on; else nothing."""
    return table_doubt(LatencyTable.read(folder.latency))


def _model(of: Path) -> Supernet:
    """That of a configuration, or of a run.

    Raises:
        ArgumentError: The run was made from Python.
    """
    instead = "call boundnas.latency.measure with its model there"
    config = configuration(RunFolder.open(of), instead) if of.is_dir() else read_config(of)
    with torch.random.fork_rng(devices=[]):
        return made(config)[2]


def _said(model: Supernet, table: LatencyTable, path: Path) -> Iterator[str]:
    yield table_note(table)
    if doubt := table_doubt(table):
        yield doubt
    ends = " to ".join(ms(time) for time in Latency(model, table).reach)
    yield f"Wrote {path.resolve()}. By it networks take {ends} ms; ask for those wanted by"
    yield f"  cost: {{metric: latency, table: {path}, lower: MS, upper: MS}}"
