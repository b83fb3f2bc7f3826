"""Validation while a supernet trains: what some of its networks are worth by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boundnas.errors import ArgumentError
from boundnas.fit.observers import Observer
from boundnas.fit.run import Run
from boundnas.randomness import stream
from boundnas.search.evaluator import Evaluator
from boundnas.settings import SearchSettings
from boundnas.space import Architecture
from boundnas.store.base import Record
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines, read_jsonl
from boundnas.store.records import Costs, Metric, Values
from boundnas.supernet.modes import evaluating
from boundnas.typed import checked


class Validated(Record):
    """A network that was measured on validation data with statistics of its own."""

    architecture: Values
    costs: Costs
    score: float


class ValidationRow(Record):
    """One row of ``validation.jsonl``, after so many steps."""

    step: int
    metric: Metric
    max: Validated
    min: Validated
    between: list[Validated]


class Validation(Observer):
    """Measures the max, the min and some networks between them while they train.

    Each is measured as the search measures it, on all validation data and with its own
    statistics. The rows go to `rows`, and to ``validation.jsonl`` in the run's folder if it has
    one; a run that continues goes on with them. The training's bytes are the same without it.

    Args:
        every: After so many steps, and again after as many.
        between: So many networks are drawn between the boundaries, the same seed giving the same.
        settings: Batch size and number of calibration images; by default those of the search.
    """

    @checked
    def __init__(
        self, every: int, between: int = 2, settings: SearchSettings | None = None
    ) -> None:
        if every < 1 or between < 0:
            raise ArgumentError(
                f"Validation: every is 1 or more and between is 0 or more, found {every} and "
                f"{between}"
            )
        self.every, self.between, self.settings = every, between, settings
        self.rows: list[dict[str, Any]] = []

    def begin(self, run: Run, step: int) -> None:
        """Keep the rows of the steps that are done, and prepare what is measured on."""
        settings = self.settings or run.searching
        self._run, self.rows = run, []
        self._evaluator = Evaluator(run.model, run.data, settings, run.seed, run.costs, run.task)
        if run.folder is not None:
            with JsonLines(run.folder.validation, run.folder.held) as file:
                file.truncate_after(step)
            self.rows = read_jsonl(run.folder.validation, run.folder.held)

    def step(self, row: Mapping[str, Any]) -> None:
        """Measure, where it is time to."""
        done = row["step"] + 1
        if done % self.every:
            return
        with self._run.averaged(), evaluating(self._run.model):
            found = list(map(self._measured, self._networks(done)))
        metric = self._evaluator.metric
        kept = ValidationRow(
            step=done, metric=metric, max=found[0], min=found[1], between=found[2:]
        )
        self.rows.append(kept.model_dump(mode="json"))
        if self._run.folder is not None:
            _append(self._run.folder, self.rows[-1])

    def _networks(self, done: int) -> Sequence[Architecture]:
        ends = self._run.boundaries.max.mode, self._run.boundaries.min.mode
        space, generator = self._run.model.space, stream(self._run.seed, "validation", done)
        allowed = self._run.allowed
        return (*ends, *(space.sample(generator, allowed) for _ in range(self.between)))

    def _measured(self, arch: Architecture) -> Validated:
        found = self._evaluator(arch)
        return Validated(architecture=arch.values, costs=dict(found.costs), score=found.score)


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    """Write a row, before the checkpoint of its step may be written."""
    with JsonLines(folder.validation, folder.held) as file:
        file.append(row)
        file.sync()
