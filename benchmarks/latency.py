"""How well latency tables predict whole networks, beside what multiply-accumulates predict.

    python benchmarks/latency.py [CASE ...] [--minutes 15] [--threads 1] [--noise 0.1] [--again]

Measures the table of each case on this machine and writes it to docs/results/latency/, then the
summary docs/results/latency.md and a picture of each. A case that was stopped goes on where it was;
one whose table is there is measured again with ``--again`` only. Stop other programs first, or give
the process the processor, as with ``chrt -f 2``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from boundnas import Supernet, latency, models
from boundnas.app.networks import build
from boundnas.config import read_config
from boundnas.cost import LatencyTable
from boundnas.report.draw import predictions
from boundnas.store.files import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FOLDER = RESULTS / "latency"


def demo() -> Supernet:
    """The space of configs/digits.yaml on 8x8 images."""
    return build(read_config(ROOT / "configs" / "digits.yaml").space, (1, 8, 8), 10)


CASES: dict[str, tuple[str, Callable[[], Supernet], str]] = {
    "table1": (
        "Table 1, width 0.5, 32x32",
        lambda: models.mobilenet_v2(0.5, image_size=32),
        "onnxruntime",
    ),
    "digits": ("the demo, 8x8", demo, "onnxruntime"),
    "resnet": ("ResNet, width 0.25, 32x32", lambda: models.resnet(0.25), "onnxruntime"),
    "vit": ("ViT, width 0.25, 32x32", lambda: models.vit(0.25), "onnxruntime"),
    "table1-torch": (
        "Table 1, width 0.5, 32x32",
        lambda: models.mobilenet_v2(0.5, image_size=32),
        "torch",
    ),
    "digits-torch": ("the demo, 8x8", demo, "torch"),
}
"""What is measured by its name: in words, the model, the runtime."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), choices=[*CASES, []])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--again", action="store_true", help="also what is there")
    asked = parser.parse_args()
    times = FOLDER / "seconds.json"
    took = json.loads(times.read_text()) if times.exists() else {}
    for name in asked.cases:
        path = FOLDER / f"{name}.json"
        if asked.again or not path.exists():
            path.unlink(missing_ok=True)
            began = time.monotonic()
            table = latency.measure(
                model_of(name), path, CASES[name][2], asked.threads, minutes=asked.minutes,
                noise=asked.noise,
            )  # fmt: skip
            took[name] = round(time.monotonic() - began)
            write_json(times, took)
            write_text(FOLDER / f"{name}.svg", predictions(table))
    summary(took)


def model_of(name: str) -> Supernet:
    """The model of a case; its weights do not matter."""
    with torch.random.fork_rng():
        return CASES[name][1]()


def summary(took: dict[str, int]) -> None:
    """Put the figures of all tables that are there between the lines of the page."""
    rows = []
    for name, (words, _, runtime) in CASES.items():
        if (FOLDER / f"{name}.json").exists():
            table = LatencyTable.read(FOLDER / f"{name}.json")
            rows.append(row(words, runtime, table, took.get(name)))
    page = RESULTS / "latency.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join([HEAD, *rows])
    write_text(page, f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
HEAD = """\
| space | runtime | networks, ms | measured in, s | places | Spearman | MACs' | error | MACs' | \
within 10 % | MACs' | noise |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def row(words: str, runtime: str, table: LatencyTable, seconds: int | None) -> str:
    """The figures of a table as a row."""
    held = table.validation
    assert held is not None
    measured = [n.measured / 1e6 for n in held.networks]
    cells = [
        words,
        f"{runtime} {table.runtime_version}",
        f"{min(measured):.3f} to {max(measured):.3f}",
        "unknown" if seconds is None else str(seconds),
        f"{sum(len(b.times) for b in table.blocks):,}",
        f"{held.spearman:.4f}",
        f"{held.spearman_of_macs:.4f}",
        f"{held.error:.1%}",
        f"{held.error_by_macs:.1%}",
        f"{held.near:.0%}",
        f"{held.near_by_macs:.0%}",
        f"{table.noise:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
