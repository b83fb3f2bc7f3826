"""What `elasticize` makes of networks that nobody here wrote, as a table.

    python -m benchmarks.coverage [PATTERN ...] [--checks extract fit onnx] [--again]
                                  [--seconds 300] [--gigabytes 8] [--table]

Every network is tried in a process of its own with limits of processor time, so that a busy machine
changes nothing, and of memory. What was found is kept after each, so that a command that was
stopped goes on where it was; a check that has a result is not repeated without ``--again``. Results
are in docs/results/coverage.json, the table in docs/results/coverage.md. It needs what `make check`
installs, and for the further packages

    pip install --no-deps monai transformers vit-pytorch efficientnet_pytorch \\
        einops tokenizers regex
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks import coverage_table
from benchmarks.foreign import Case, cases
from tests import laws
from torch import Tensor, nn
from torch.nn import functional as F

import boundnas as bn
from boundnas.cost import MACs
from boundnas.store.files import write_bytes

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RAW, TABLE = RESULTS / "coverage.json", RESULTS / "coverage.md"

Row = dict[str, Any]
"""What is known of a network: of every check ``"yes"`` or why not, figures, and when."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="of library/name")
    parser.add_argument("--checks", nargs="*", default=list(CHECKS), choices=list(CHECKS))
    parser.add_argument("--again", action="store_true", help="repeat what failed, too")
    parser.add_argument("--all", action="store_true", help="repeat everything")
    parser.add_argument("--seconds", type=int, default=300, help="of a core, for one network")
    parser.add_argument("--gigabytes", type=float, default=8, help="of memory, for one network")
    parser.add_argument("--millions", type=float, default=1e9, help="of parameters, at most")
    parser.add_argument("--table", action="store_true", help="write the table only")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    _commit()
    rows = json.loads(RAW.read_text()) if RAW.exists() else {}
    for case in () if asked.table else sorted(cases(), key=lambda c: c.millions):
        key = f"{case.library}/{case.name}"
        named = any(fnmatchcase(key, pattern) for pattern in asked.patterns)
        if not named or case.millions > asked.millions:
            continue
        row = {} if asked.all else rows.get(key, {})
        if todo := _missing(row, asked.checks, asked.again):
            began = time.monotonic()
            rows[key] = _tried(case, todo, row, asked)
            print(f"{time.monotonic() - began:6.1f} s  {key}: {_said(rows[key])}", flush=True)
            write_bytes(RAW, json.dumps(rows, indent=1, sort_keys=True).encode())
    write_bytes(TABLE, coverage_table.table(rows).encode())


def _missing(row: Row, checks: list[str], again: bool) -> list[str]:
    """The checks to do; after a conversion that fails there are no others."""
    wanted = ["converts", *checks]
    if again:
        return [c for c in wanted if row.get(c) != "yes"]
    return [] if row.get("converts", "yes") != "yes" else [c for c in wanted if c not in row]


def _said(row: Row) -> str:
    parts = [f"{row['share']:.0%}"] if "share" in row else []
    parts += [f"{c}: {row[c]}" for c in coverage_table.COLUMNS if row.get(c, "yes") != "yes"]
    return ", ".join(parts)[:300]


def _tried(case: Case, todo: list[str], row: Row, asked: argparse.Namespace) -> Row:
    """A row with what a process of its own found."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    arguments = case, todo, there, asked
    process = multiprocessing.get_context("fork").Process(target=_child, args=arguments)
    process.start()
    there.close()
    row = {**row, "library": case.library, "name": case.name, "shape": list(case.shape)}
    row |= {"commit": _commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
    doing = "converts"
    with suppress(EOFError):
        while True:
            found = here.recv()
            doing = found.pop("doing", doing)
            row |= found
    process.join()
    if process.exitcode == -signal.SIGXCPU:
        row[doing] = f"not done in {asked.seconds} seconds of a core"
    elif process.exitcode:
        row[doing] = f"the process ended with {process.exitcode}; more than the memory it may take?"
    return row


@cache
def _commit() -> str:
    """The state of the code, asked before anything is tried."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _child(case: Case, todo: list[str], pipe: Any, asked: argparse.Namespace) -> None:
    """Do the checks and send what comes out, each as it is known."""
    warnings.simplefilter("ignore")
    limit = int(asked.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (asked.seconds, asked.seconds + 60))
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        torch.manual_seed(0)
        doing = "converts"
        try:
            net = case.build().eval()
            pipe.send({"parameters": sum(p.numel() for p in net.parameters())})
            made = bn.elasticize(net, case.example(), sort=False)
            laws.largest_is_original(net, made, exact=True)
            pipe.send({"converts": "yes", "largest": "yes", **_figures(made)})
            for doing in [c for c in CHECKS if c in todo]:
                pipe.send({"doing": doing})
                try:
                    CHECKS[doing](net, made)
                    pipe.send({doing: "yes"})
                except Exception as error:
                    pipe.send({doing: _reason(error)})
        except Exception as error:
            pipe.send({doing: _reason(error)})


def _reason(error: Exception) -> str:
    """Why, in words; where, of what is no error of ours."""
    text = _placeless(str(error))
    if isinstance(error, bn.BoundNASError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"


def _placeless(text: str) -> str:
    """In one line, with the names of files alone, wherever they lie on this machine."""
    return re.sub(r"(?<![\w.])/(?:[^/\s,():]+/)+(?=[^/\s,():]+\.\w)", "", " ".join(text.split()))


def _figures(made: Any) -> Row:
    kinds = Counter(d.kind for d in made.space.dimensions if len(d) > 1)
    fixed = Counter(row.reason for row in made.report.rows if row.reason)
    return {
        "share": made.report.searched_macs,
        "macs": made.report.macs,
        "dimensions": dict(sorted(kinds.items())),
        "fixed": [_placeless(reason) for reason, _ in fixed.most_common(3)],
    }


def _extract(net: nn.Module, made: Any) -> None:
    laws.extracted_is_supernet(made, number=0)


def _fit(net: nn.Module, made: Any) -> None:
    """One step with learned boundaries, with all that is checked before it."""
    x = laws.random_inputs(made, 8)
    rows = [(x[i], float(i)) for i in range(8)]
    task = bn.tasks.Own(_loss, _loss, lambda y, t: -_errors(y, t))
    smallest, largest = MACs(made).reach
    bn.fit(
        made,
        bn.Data(rows, test=rows[:2], validation=rows[:2]),
        task=task,
        cost_range=(smallest, (smallest + largest) // 2),
        settings=bn.TrainSettings(steps=1, batch_size=2),
    )


def _errors(y: Tensor, t: Tensor) -> Tensor:
    means = t.flatten(1).mean(1) if t.dim() > 1 else t
    return (y.flatten(1).float().mean(1) - means).square()


def _loss(y: Tensor, t: Tensor) -> Tensor:
    return F.mse_loss(y.float(), t) if y.shape == t.shape else _errors(y, t).mean()


def _onnx(net: nn.Module, made: Any) -> None:
    """The smallest network as a file, which export compares with the network."""
    arch = bn.calibrate(made, made.space.smallest, [laws.random_inputs(made, 4)])
    with TemporaryDirectory() as folder:
        bn.export(bn.extract(made, arch), Path(folder, "net.onnx"))


CHECKS: dict[str, Callable[[nn.Module, Any], None]] = {
    "extract": _extract,
    "fit": _fit,
    "onnx": _onnx,
}
"""In the order in which they are done; one that trains comes after those that look at weights."""

if __name__ == "__main__":
    main()
