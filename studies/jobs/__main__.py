"""``python -m studies.jobs``: run every job with every seed, and write the table of them.

What was measured is kept as it comes and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import boundnas as bn
from boundnas.search.evaluator import Evaluator
from boundnas.store.files import write_text
from boundnas.store.records import Metric
from studies.alone import train_alone
from studies.jobs import images, tables, words
from studies.jobs.problem import Job

JOBS = {**tables.JOBS, **images.JOBS, **words.JOBS}
OUT = Path(__file__).parents[2] / "docs" / "results" / "jobs"


def measured(name: str, job: Job, seed: int) -> dict[str, Any]:
    """Everything of one job and seed: the network that validation chooses, and the baselines."""
    samples, start = job.samples(seed), time.process_time()
    data = samples.data(name)
    torch.manual_seed(seed)  # of the initial weights
    model = job.net(data, job.options)
    run = bn.fit(
        model, data, task=job.task, cost_range=job.cost_range, settings=job.train, seed=seed
    )
    front = bn.search(run, job.search)
    chosen = front.best()
    seconds = time.process_time() - start
    return {
        "job": name,
        "seed": seed,
        "chosen": chosen.to_json(),
        "front": [network.to_json() for network in front.networks],
        "plain": plain(job, data, run, chosen),
        "baselines": job.baselines(samples, seed),
        "seconds": round(seconds, 1),
    }


def plain(job: Job, data: bn.Data, run: bn.Run, chosen: bn.FrontNetwork) -> float:
    """Test score of a network of the chosen one's size that is trained alone.

    Same batches, steps, optimizer and step sizes; weights are drawn anew for its own size.
    """
    torch.manual_seed(1000 + run.seed)
    model = job.net(data, {name: (v,) for name, v in chosen.arch.values.items()})
    train_alone(model, data, run.task, job.train, run.seed)
    evaluator = Evaluator(model, data, job.search, run.seed, run.costs, run.task)
    return evaluator.tested(evaluator.calibrated(model.space.largest))[0]


def spread(scores: list[float], metric: Metric) -> str:
    """Mean and standard deviation over seeds, as they are shown."""
    shown = [score * metric.scale for score in scores]
    digits = 3 if metric.scale == 1 else 1
    deviation = f" ± {stdev(shown):.{digits}f}" if len(shown) > 1 else ""
    return f"{mean(shown):.{digits}f}{deviation} {metric.unit}".rstrip()


def rows(name: str, found: list[dict[str, Any]]) -> list[str]:
    """Lines of the table: the family first; what shows the best mean of the job is bold."""
    metric = Metric.of(JOBS[name].task)
    macs = mean(each["chosen"]["costs"]["macs"] for each in found)
    scores = {
        "family, chosen on validation": [each["chosen"]["test"] for each in found],
        "its size, trained alone": [each["plain"] for each in found],
    }
    for method in found[0]["baselines"]:
        scores[method] = [each["baselines"][method] for each in found]
    texts = {method: spread(each, metric) for method, each in scores.items()}
    best = texts[max(scores, key=lambda method: mean(scores[method]))].split()[0]
    lines = []
    for number, (method, text) in enumerate(texts.items()):
        cells = [
            f"`{name}`, {metric.name}" if not number else "",
            method,
            f"**{text}**" if text.split()[0] == best else text,
            f"{macs:,.0f}" if number < 2 else "",
            str(len(found)),
            f"{mean(e['seconds'] for e in found):.0f}" if not number else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(folder: Path) -> str:
    """The table of everything that was measured."""
    every = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = ["| job, metric | method | test | MACs | seeds | CPU seconds a seed |"]
    lines.append("|---|---|---|---|---|---|")
    for name in JOBS:
        if found := [each for each in every if each["job"] == name]:
            lines += rows(name, found)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(prog="python -m studies.jobs", description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in range(asked.seeds):
        for name in asked.jobs:
            path = asked.out / f"{name}-{seed}.json"
            if not path.exists():
                text = json.dumps(measured(name, JOBS[name], seed), indent=1, sort_keys=True)
                write_text(path, text + "\n")
    print(table(asked.out))


if __name__ == "__main__":
    main()
