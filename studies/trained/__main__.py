"""``python -m studies.trained``: what becomes of trained weights, by three ways of equal time.

Every measurement is kept as it comes and is not made again, so a stopped study goes on. Its
pruning needs ``pip install torch-pruning``.
"""

from __future__ import annotations

import argparse
import json
from math import nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import boundnas as bn
from boundnas.store.files import write_text
from studies.trained.methods import BUDGETS, Measured, Setting, everything
from studies.trained.networks import NETWORKS

OUT = Path(__file__).parents[2] / "docs" / "results" / "trained"
SEARCH = bn.SearchSettings(initial=32, rounds=4, crossovers=16, mutations=16)
WAYS = {"family": "family from trained weights", "pruned": "pruned", "scratch": "from scratch"}


class Kept:
    """What was measured of one network and seed, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, name: str, measure: Measured) -> dict[str, Any]:
        """What is kept under a name, or measured now."""
        if name not in self.found:
            self.found[name] = measure()
            write_text(self.path, json.dumps(self.found, indent=1, sort_keys=True) + "\n")
        result: dict[str, Any] = self.found[name]
        return result


def tests(found: dict[str, Any], way: str, share: float) -> float:
    """Accuracy on test data of one way at one budget; NaN where it has no network so small."""
    if way == "family":
        return float(found["family"].get(str(share), [nan] * 3)[2])
    return float(found[f"{way}-{share}"]["test"])


def table(folder: Path) -> str:
    """Test accuracy of every way at every budget, as far as all of it was measured."""
    lines = ["| network | part of the MACs | " + " | ".join(WAYS.values()) + " | seeds |"]
    lines.append("|---|---|" + "---|" * (len(WAYS) + 1))
    for network in NETWORKS:
        every = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{network}-*.json"))]
        whole = [found for found in every if f"scratch-{BUDGETS[-1]}" in found]
        for share in BUDGETS if whole else ():
            cells = [shown([tests(found, way, share) for found in whole]) for way in WAYS]
            lines.append(f"| {network} | {share:.0%} | {' | '.join(cells)} | {len(whole)} |")
    return "\n".join(lines) + "\n"


def shown(scores: list[float]) -> str:
    """Mean and standard deviation over seeds, in per cent."""
    deviation = f" ± {100 * stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{100 * mean(scores):.2f}{deviation} %"


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(prog="python -m studies.trained", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--steps", type=int, default=2000, help="of the plain training")
    parser.add_argument("--family-steps", type=int, default=500, help="of the supernet")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--data", default=None, help="folder of Fashion-MNIST's files")
    parser.add_argument("--weights", type=Path, default=Path("trained-weights"))
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    for folder in (asked.out, asked.weights):
        folder.mkdir(parents=True, exist_ok=True)
    data = bn.data.fashion_mnist(asked.data)
    for seed in asked.seeds:
        for name in asked.networks:
            setting = Setting(
                name, data, seed, asked.steps, asked.family_steps, asked.batch_size, SEARCH
            )
            stem = f"{name}-{seed}"
            everything(
                setting, asked.weights / f"{stem}.safetensors", Kept(asked.out / f"{stem}.json")
            )
    print(table(asked.out))


if __name__ == "__main__":
    main()
