"""How the time of a step grows with dimensions, options, batch and image size.

Steps of one space, Table 1 at a quarter of its width, in which one size at a time is varied. For
each size the median over steps that learn both boundaries, and over plain steps on the same
networks, taken in turn; the exponent is the slope of a straight line through the logarithms.

    python benchmarks/growth.py [--threads 1] [--steps 9] [--seed 0] [--plot file.svg]
                                [--output file.md]
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from boundnas import TrainSettings
from boundnas.models import MobileNet
from boundnas.models.mobilenet import tables
from step import setting_of, step_times

WIDTH, BATCH, IMAGE, OPTIONS = 0.25, 32, 32, 8


def network(searched: int = 7, options: int = OPTIONS, image_size: int = IMAGE) -> MobileNet:
    """The space with the first ``searched`` stages searched and the others at their largest.

    Args:
        searched: Number of stages.
        options: Widths have so many choices, evenly spread from an eighth to the largest.
        image_size: Height and width of the images.
    """
    stem, stages = tables("mobilenet_v2", WIDTH)

    def spread(choices: tuple[int, ...]) -> tuple[int, ...]:
        found = np.linspace(choices[0], choices[-1], options).round().astype(int)
        return tuple(sorted({int(c) for c in found}))

    stages = tuple(
        replace(s, intermediate=spread(s.intermediate), output=spread(s.output))
        if i < searched
        else replace(
            s, intermediate=s.intermediate[-1:], output=s.output[-1:], depth=s.depth[-1:],
            kernel=s.kernel[-1:],
        )
        for i, s in enumerate(stages)
    )  # fmt: skip
    stem = replace(stem, width=spread(stem.width))
    return MobileNet(stem, stages, last_width=320, image_size=image_size)


def seconds(model: MobileNet, batch: int, steps: int, seed: int) -> tuple[float, float]:
    """Median seconds of a step that learns, and of a plain one on the same networks."""
    settings = TrainSettings(steps=1, start_std=0.1)
    times = step_times(setting_of(model.train(), settings, batch, seed), steps)
    return statistics.median(times["learning"]), statistics.median(times["plain"])


def sizes() -> Iterator[tuple[str, int, MobileNet, int]]:
    """What is varied, its size, and the supernet and batch that have it."""
    for stages in (1, 2, 4, 7):
        model = network(searched=stages)
        dimensions = sum(len(d) > 1 for d in model.space.dimensions)
        yield "searched dimensions", dimensions, model, BATCH
    for options in (2, 4, 8):
        yield "options of a width", options, network(options=options), BATCH
    for batch in (16, 32, 64, 128):
        yield "batch", batch, network(), batch
    for image_size in (16, 32, 64):
        yield "pixels per side", image_size, network(image_size=image_size), BATCH


def exponent(rows: Sequence[tuple], column: int) -> float:
    logs = np.log([[row[0], row[column]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def table(found: dict[str, list[tuple[int, float, float]]]) -> list[str]:
    lines = [
        "| varied | sizes | learned boundaries, ms | exponent | plain, ms | exponent | ratio |",
        "|---" * 7 + "|",
    ]
    for what, rows in found.items():
        columns = [", ".join(f"{1e3 * row[c]:.0f}" for row in rows) for c in (1, 2)]
        ratios = ", ".join(f"{learned / plain:.2f}" for _, learned, plain in rows)
        lines.append(
            f"| {what} | {', '.join(str(row[0]) for row in rows)} | {columns[0]} "
            f"| {exponent(rows, 1):.2f} | {columns[1]} | {exponent(rows, 2):.2f} | {ratios} |"
        )
    return lines


def plot(found: dict[str, list[tuple]], labels: Sequence[str], unit: str, path: Path) -> None:
    """Seconds against sizes, a panel for what is varied and a curve for each label.

    Args:
        found: What is varied to rows of a size and the seconds of each label.
        labels: Names of the curves.
        unit: What takes so many seconds.
        path: Where the figure is written to.
    """
    figure = Figure(figsize=(2.5 * len(found), 2.8), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    for axes, (what, rows) in zip(panels, found.items(), strict=True):
        x, *columns = zip(*rows, strict=True)
        for y, label in zip(columns, labels, strict=True):
            axes.loglog(x, y, marker="o", label=label)
        axes.set_xlabel(what)
        axes.set_xticks(x, [str(v) for v in x], minor=False)
        axes.minorticks_off()
    low, high = figure.axes[0].get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    figure.axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks])
    figure.axes[0].set_ylabel(f"seconds a {unit}")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    found: dict[str, list[tuple[int, float, float]]] = {}
    for what, size, model, batch in sizes():
        times = seconds(model, batch, args.steps, args.seed)
        found.setdefault(what, []).append((size, *times))
        print(what, size, *(f"{t:.3f} s" for t in times), flush=True)
    lines = [
        f"Table 1 at width {WIDTH:g}; batch {BATCH}, {IMAGE} pixels, {OPTIONS} options and all "
        f"stages searched where not varied; medians of {args.steps} steps; {args.threads} "
        f"threads, {platform.machine()}, PyTorch {torch.__version__}, seed {args.seed}.",
        "",
        *table(found),
    ]
    text = "\n".join(lines)
    print(text)
    if args.plot:
        plot(found, ("learned boundaries", "plain"), "step", args.plot)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
