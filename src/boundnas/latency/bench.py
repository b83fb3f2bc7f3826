"""Times that are kept batch by batch, so that a killed measurement goes on; noise is noticed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn

from boundnas.errors import CostError, RunError
from boundnas.latency.runtimes import Runtime
from boundnas.latency.timing import Call, Times, in_turn
from boundnas.store.base import Vouched
from boundnas.store.files import set_aside
from boundnas.store.lines import JsonLines
from boundnas.store.records import read_journal

TRIES = 6
"""So often is a batch timed where the machine is too noisy, each time with twice the rounds."""

_log = logging.getLogger(__name__)


class Begun(Vouched):
    """What the times of a journal depend on, by names that a user understands."""

    settings: dict[str, str]


class Batch(Vouched):
    """Times that were taken in turn.

    Args:
        names: What was timed.
        times: Median and quartiles of each.
        reference: Those of a network that is the same in every batch.
        elapsed: Nanoseconds since the beginning, without those in which no process was there.
    """

    names: tuple[str, ...]
    times: tuple[tuple[int, int, int], ...]
    reference: tuple[int, int, int]
    elapsed: int


@dataclass(frozen=True)
class Noise:
    """How the times of one and the same network lay apart.

    Args:
        spread: The distance of the quartiles over the median within a batch; the median of all.
        drift: Likewise between the medians of the batches.
    """

    spread: float
    drift: float

    @classmethod
    def of(cls, references: Sequence[Times]) -> Noise:
        """That of the reference in all batches."""
        medians = Times.of([t.median for t in references])
        return cls(median(t.spread for t in references), medians.spread)


class Bench:
    """Times networks in batches, each beside a reference that tells how noisy the machine is.

    A context manager.

    Args:
        runtime: Where they run.
        accepted: The largest noise that is accepted.
        path: The journal, if there is one.
        settings: What the times depend on; a journal that says something else is set aside.

    Raises:
        RunError: The journal is damaged or cannot be written.
    """

    def __init__(
        self, runtime: Runtime, accepted: float, path: Path | None, settings: Mapping[str, str]
    ) -> None:
        self._runtime, self._accepted = runtime, accepted
        self.batches: list[Batch] = []
        self._sum = ""
        for row in [] if path is None else _rows(path, Begun(settings=dict(settings))):
            self._sum = row.sum
            if isinstance(row, Batch):
                self.batches.append(row)
        self._lines = None if path is None else JsonLines(path)
        if not self._sum:
            self._append(Begun(settings=dict(settings)))
        self._reference = runtime.load(*reference())
        self._start = runtime.clock() - (self.batches[-1].elapsed if self.batches else 0)

    @property
    def elapsed(self) -> int:
        """Nanoseconds since the beginning, without those in which no process was there."""
        return self._runtime.clock() - self._start

    @property
    def noise(self) -> Noise:
        """That of all batches."""
        return Noise.of(self._references)

    @property
    def _references(self) -> list[Times]:
        return [Times(*batch.reference) for batch in self.batches]

    @property
    def times(self) -> dict[str, Times]:
        """What was timed by its name, without batches from when the machine was slow."""
        found: dict[str, Times] = {}
        for batch in self.batches:
            if self._slowness(Times(*batch.reference)) <= self._accepted:
                found |= dict(zip(batch.names, (Times(*t) for t in batch.times), strict=True))
        return found

    def run(self, names: Sequence[str], calls: Sequence[Call], rounds: int) -> None:
        """Time a batch and keep it.

        Raises:
            CostError: The machine is too noisy.
            RunError: The journal cannot be written.
        """
        for turn in range(TRIES):
            reference, *found = in_turn(
                [self._reference, *calls], rounds * 2**turn, self._runtime.clock
            )
            too_noisy = self._too_noisy(reference)
            if too_noisy is None:
                break
        else:
            raise CostError(
                f"this machine is too noisy: {too_noisy}, and {self._accepted:.0%} is allowed; "
                "stop other programs, fix the processor's frequency, or accept it with noise=…; "
                "what was measured is kept, and the same call goes on from there"
            )
        self.batches.append(self._written(names, found, reference))

    def _written(self, names: Sequence[str], found: Sequence[Times], reference: Times) -> Batch:
        batch = Batch(
            names=tuple(names),
            times=tuple((t.median, t.lower, t.upper) for t in found),
            reference=(reference.median, reference.lower, reference.upper),
            elapsed=self.elapsed,
        )
        self._append(batch)
        return batch

    def _too_noisy(self, reference: Times) -> str | None:
        """What is wrong with a batch, by its reference."""
        if reference.spread > self._accepted:
            return f"the same network takes {reference.spread:.0%} longer or shorter"
        if (slowness := self._slowness(reference)) > self._accepted:
            return f"it became {slowness:.0%} slower"
        return None

    def _slowness(self, reference: Times) -> float:
        """How much longer the reference took than in a quarter of all batches."""
        if not self.batches:
            return 0.0
        usual = Times.of([batch.reference[0] for batch in self.batches]).lower
        return reference.median / max(usual, 1) - 1

    def _append(self, row: Vouched) -> None:
        if self._lines is not None:
            written = row.written(self._sum)
            self._lines.append(written)
            self._lines.sync()
            self._sum = written["sum"]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()


def _rows(path: Path, begun: Begun) -> list[Begun | Batch]:
    """What a journal holds; nothing, and it is set aside, where that was measured otherwise.

    Raises:
        RunError: It is damaged.
    """
    try:
        rows = list(read_journal(path, Begun, Batch))
    except RunError as error:
        raise RunError(f"{error}; remove the file to measure anew") from error
    if not rows or not isinstance(rows[0], Begun):
        return []
    held = rows[0].settings
    differing = [k for k in {**begun.settings, **held} if held.get(k) != begun.settings.get(k)]
    if not differing:
        return rows
    _log.warning(
        "%s: was measured with another %s; it is kept as %s, and everything is measured anew",
        path, ", ".join(differing), set_aside(path).name,
    )  # fmt: skip
    return []


def reference() -> tuple[nn.Module, list[torch.Tensor]]:
    """A network that is the same for all tables, and an input: 9.4 million products."""
    conv = nn.utils.skip_init(nn.Conv2d, 32, 32, 3, padding=1).requires_grad_(False)
    for parameter in conv.parameters():
        parameter.fill_(0.01)
    return nn.Sequential(conv, nn.ReLU()).eval(), [torch.ones(1, 32, 32, 32)]
