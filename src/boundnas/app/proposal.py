"""A configuration to begin with, which fits the images: ``boundnas init --data FOLDER``."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from boundnas.app.networks import build
from boundnas.app.own import Own
from boundnas.app.pipeline import Job, budgets_of
from boundnas.config import RunConfig, flow
from boundnas.cost import MACs
from boundnas.data import load
from boundnas.data.look import Look, look
from boundnas.fit.train import fit
from boundnas.randomness import stream
from boundnas.search import Evaluator
from boundnas.settings import (
    CostSettings,
    DataSettings,
    ExportSettings,
    SearchSettings,
    Settings,
    SpaceSettings,
    TrainSettings,
)
from boundnas.task import Classification

SIZES = (8, 16, 24, 32, 48, 64)
"""Sides that images are scaled to, in pixels; the time of a step grows with their square."""

LEAST_STEPS, MOST_STEPS, PASSES = 1000, 20_000, 30

LEFT_OUT = 0.15
"""Part of what the space reaches that is left out at each end, on a logarithmic scale."""

_COMMENTS = {
    "name": "name of the run, and of its folder under runs/",
    "seed": "same seed, same machine: same run, bit for bit",
    "device": "auto takes a GPU if there is one, else the processor",
    "data": "images to train and select on",
    "data.set": "{set}",
    "data.folder": "{classes} classes; images: {train} to train, {validation} to select, "
    "{test} to test",
    "data.image_size": "pixels per side; {sides}",
    "data.channels": "3 reads them in colour, 1 in grey",
    "data.fit": "of what is no square; pad adds borders, crop takes the middle",
    "data.mirror": "whether they are mirrored at random, wrong for letters and signs",
    "data.validation_fraction": "part of the images to select by, unless they have such a split",
    "space": "the networks to choose from",
    "space.family": "MobileNetV2-like: widths, kernels and depths are searched",
    "space.width": "of every number of channels; more for harder images, and slower",
    "space.dropout": "dropout before the classifier; none in so short a training",
    "space.drop_connect": "rate at which blocks are skipped in training; likewise",
    "cost": "networks from lower to upper are wanted; the boundaries learn this",
    "cost.metric": "macs (multiply-accumulates per image), parameters, or latency (docs)",
    "cost.lower": "millions; the space begins at {least}",
    "cost.upper": "millions; the space ends at {most}",
    "train": "training of all networks at once",
    "train.steps": "training steps: {passes} passes over the training images",
    "train.batch_size": "images per step",
    "train.learning_rate": "highest step size, after a short warm-up; then down to zero",
    "train.learn": "both ends of the space are learned; none is a plain supernet",
    "search": "search of the best networks after training",
    "search.initial": "networks drawn to begin with",
    "search.rounds": "rounds in which the best so far have children",
    "search.crossovers": "children of two parents, per round",
    "search.mutations": "changed copies of one parent, per round",
    "search.calibration_images": "images that BatchNorm is measured on for each network",
    "export": "what the networks are written as",
    "export.formats": "ONNX, a program of torch.export, and ONNX in 8 bits",
}
"""What is said of every key that is written; the rest have their defaults."""

_COLUMN = 34

_TRIED = 4
"""So many steps, and networks, say how long all of them take."""


@dataclass(frozen=True)
class Proposal:
    """What ``boundnas init`` proposes.

    Args:
        job: The configuration made real.
        seen: What the image files look like, where there are any.
    """

    job: Job
    seen: Look | None

    @property
    def text(self) -> str:
        """The configuration, with a comment on every key."""
        lines = [
            "# Trains, searches, exports and reports:  boundnas run THIS_FILE",
            "# Keys that are left out take their defaults. Misspelt keys are refused, with a hint.",
            "",
        ]
        facts = self._facts()
        for key, comment in _COMMENTS.items():
            lines += _lines(self.job.config, key, comment.format(**facts))
        return "\n".join(lines) + "\n"

    def _facts(self) -> dict[str, object]:
        """What the comments tell of the images and of the space."""
        config, data = self.job.config, self.job.data
        least, most = (f"{cost / 1e6:.3g}" for cost in self.job.budgets[0].cost.reach)
        steps, size = config.train.steps or 0, config.train.batch_size
        seen = self.seen
        return {
            "set": "8x8 digits that come along; folder: images of your own"
            if seen is None
            else "images of your own, in a folder for each class",
            "classes": len(data.classes or ()),
            "train": f"{len(data.train):,}",
            "validation": f"{len(data.validation):,}",
            "test": f"{len(data.test):,}",
            "sides": "" if seen is None else _sides(seen),
            "least": least,
            "most": most,
            "passes": f"{steps * size / len(data.train):,.0f}",
        }

    def seconds(self) -> float:
        """About how long training and search take on this machine, from a few steps of each.

        The model is trained a little by this, so that the job is not to be run any more.
        """
        job, train, search = self.job, self.job.config.train, self.job.config.search

        def trained(steps: int) -> float:
            start = time.monotonic()
            few = train.model_copy(update={"steps": steps})
            (cost, cost_range), *_ = job.budgets
            fit(job.model, job.data, cost_range=cost_range, cost=cost, settings=few)
            return time.monotonic() - start

        first = trained(1)  # and all that comes before it
        step = (trained(1 + _TRIED) - first) / _TRIED
        evaluator = Evaluator(job.model, job.data, search, job.config.seed)
        space, generator = job.model.space, stream(0, "init")
        drawn = [space.sample(generator, space.whole) for _ in range(_TRIED)]
        start = time.monotonic()
        with evaluator.measuring() as measure:
            list(measure(drawn))
        candidate = (time.monotonic() - start) / _TRIED
        candidates = search.initial + search.rounds * (search.crossovers + search.mutations)
        return (train.steps or 0) * max(0.0, step) + candidates * candidate


def propose(folder: Path | None) -> Proposal:
    """A configuration that fits the images of a folder, or the digits that come along.

    Args:
        folder: A folder with a folder of images for each class.

    Raises:
        DataError: The images cannot be trained on.
        ConfigError: The path of the folder is none that a configuration can hold.
    """
    seen, settings = None, DataSettings()
    if folder is not None:
        seen = look(folder)
        most = SIZES[-1] if seen is None else seen.side
        side = max((size for size in SIZES if size <= most), default=SIZES[0])
        channels = 1 if seen is not None and seen.grey else 3
        settings = DataSettings(
            set="folder",
            folder=str(folder),
            image_size=side,
            channels=channels,
            fit="resize",
            mirror=True,
        )
    data = load(settings.set, **{k: v for k, v in dict(settings).items() if k != "set"})
    width = 1.0 if torch.cuda.is_available() else 0.25
    space = SpaceSettings(width=width, dropout=0.0, drop_connect=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(space, data.shape, len(data.classes))
    cost = MACs(model)
    lower, upper = _range(*cost.reach)
    config = RunConfig(
        name=_name(data.name),
        data=settings,
        space=space,
        cost=(CostSettings(lower=lower, upper=upper),),
        train=_training(len(data.train)),
        search=SearchSettings(
            initial=64, rounds=6, crossovers=16, mutations=16, calibration_images=1024
        ),
        export=ExportSettings(formats=("onnx", "pt2", "int8")),
    )
    own = Own(())
    budgets = budgets_of(config, model, own, {})
    return Proposal(Job(config, data, model, budgets, Classification(), own), seen)


def about(seconds: float) -> str:
    """A length of time in one word and a number.

    Examples:
        >>> about(40), about(400), about(40_000)
        ('40 seconds', '7 minutes', '11 hours')
    """
    for unit, size in (("seconds", 1), ("minutes", 60)):
        if seconds < 90 * size:
            return f"{max(2, round(seconds / size))} {unit}"
    return f"{seconds / 3600:.2g} hours"


def _lines(config: RunConfig, key: str, comment: str) -> Iterator[str]:
    """The lines of one key; none where it has no value."""
    section, _, name = key.partition(".")
    value = getattr(config, section)
    value = value[0] if section == "cost" else value
    value = getattr(value, name) if name else value
    if isinstance(value, Settings):
        yield ""
        yield f"{f'{section}:':{_COLUMN}}# {comment}"
    elif value is not None:
        entry = f"  {name}: {flow(value)}" if name else f"{section}: {flow(value)}"
        if len(entry) >= _COLUMN:
            yield f"{'  ' if name else ''}# {comment}"
            yield entry
        else:
            yield f"{entry:{_COLUMN}}# {comment}"


def _sides(seen: Look) -> str:
    colours = "grey" if seen.grey else "colours"
    if seen.least == seen.most:
        return f"shorter sides have {seen.side}, {colours}"
    return f"shorter sides have {seen.least} to {seen.most}, median {seen.side}, {colours}"


def _range(least: float, most: float) -> tuple[float, float]:
    """A range of costs inside what the space reaches, in millions and in round numbers."""
    part = (most / least) ** LEFT_OUT
    return _rounded(least * part / 1e6), _rounded(most / part / 1e6)


def _rounded(number: float) -> float:
    return float(f"{number:.2g}")


def _training(images: int) -> TrainSettings:
    """As many passes as the time allows, in batches that are no large part of the images."""
    batch = min(64, max(2, 2 ** int(math.log2(max(2, images / 4)))))
    steps = min(MOST_STEPS, max(LEAST_STEPS, PASSES * images // batch))
    return TrainSettings(steps=steps, batch_size=batch)


def _name(text: str) -> str:
    """Text as the name of a run."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return plain[:100] or "images"
