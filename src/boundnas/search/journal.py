"""What the search has measured, kept so that a killed search loses only what is being measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from boundnas.errors import RunError, SpaceError
from boundnas.fit.identity import Identity, difference
from boundnas.space import Architecture, SearchSpace
from boundnas.store.base import Vouched
from boundnas.store.files import set_aside
from boundnas.store.held import HeldFolder
from boundnas.store.lines import JsonLines
from boundnas.store.records import EvaluationRecord, Metric, Origin, read_journal

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """One architecture and what was measured of it.

    Args:
        architecture: The architecture.
        costs: Its costs by name, each in its own unit: ``macs`` of one image, ``parameters``, and
            that of the run, if it is another.
        score: The task's metric on validation data, higher is better, or an estimate of it.
        images: So many validation images the score rests on: all of them, or those that
            candidates are screened on.
    """

    architecture: Architecture
    costs: Mapping[str, int]
    score: float
    images: int

    def record(self) -> EvaluationRecord:
        """What is written of it."""
        return EvaluationRecord(
            architecture=self.architecture.values,
            costs=dict(self.costs),
            score=self.score,
            images=self.images,
        )

    @classmethod
    def of(cls, record: EvaluationRecord, space: SearchSpace) -> Evaluation:
        """The evaluation of a record.

        Raises:
            RunError: It is of another space.
        """
        try:
            arch = space.architecture(record.architecture)
        except SpaceError as error:
            raise RunError(f"is of another search space: {error}") from error
        return cls(arch, record.costs, record.score, record.images)


class Journal(Mapping[Architecture, Evaluation]):
    """All evaluations of one search, on disk line by line, looked up by architecture.

    The first line says what the evaluations depend on, and every line carries a sum over itself
    and the lines before, so that only what was measured under the same conditions ever answers.

    Args:
        path: A JSON Lines file, continued when it exists; a torn tail is cut.
        space: The search space that its architectures belong to.
        identity: What the evaluations depend on; a file that says something else is set aside.
        costs: The costs that are known of each, by name.
        metric: What their scores are.
        writes: Whether what is appended goes to the file, and on to the disk.
        held: The held folder that it lies in, if it does.

    Raises:
        RunError: A line before the last is damaged or not an evaluation of ``space`` with these
            costs, an architecture appears twice, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        space: SearchSpace,
        identity: Identity,
        costs: Mapping[str, Callable[[Architecture], int]],
        metric: Metric,
        writes: bool = True,
        held: HeldFolder | None = None,
    ) -> None:
        self._evaluations: dict[Architecture, Evaluation] = {}
        self._sum = ""
        for row in self._rows(path, identity, writes, held):
            try:
                evaluation = _checked(row, space, costs)
                if evaluation.architecture in self._evaluations:
                    raise RunError("repeats an architecture of an earlier line")
            except RunError as error:
                number = len(self._evaluations) + 2
                raise RunError(f"{path}, line {number}: {error}; {_AGAIN}") from error
            self._evaluations[evaluation.architecture] = evaluation
            self._sum = row.sum
        self._lines = JsonLines(path, held) if writes else None
        if not self._sum:
            self._append(Origin(identity=identity, metric=metric))

    def _rows(
        self, path: Path, identity: Identity, writes: bool, held: HeldFolder | None
    ) -> Iterator[EvaluationRecord]:
        """The evaluations of the file; none of a file of another search, which is set aside."""
        rows = read_journal(path, Origin, EvaluationRecord, held)
        try:
            first = next(rows, None)
        except RunError as error:
            raise RunError(
                f"{error}; this line does not say what was measured: remove the file to start the "
                "search over"
            ) from error
        if not isinstance(first, Origin):
            return
        different = difference(first.identity, identity)
        if different is None:
            self._sum = first.sum
            yield from _evaluations(rows)
        elif writes:
            _log.warning(
                "%s: was measured with %s; it is kept as %s and the search measures anew",
                path,
                different,
                set_aside(path, held).name,
            )

    def append(self, evaluation: Evaluation) -> None:
        """Keep an evaluation of an architecture that has none yet.

        Raises:
            RunError: It cannot be written.
        """
        assert evaluation.architecture not in self, f"evaluated twice: {evaluation.architecture}"
        self._append(evaluation.record())
        self._evaluations[evaluation.architecture] = evaluation

    def _append(self, record: Vouched) -> None:
        if self._lines is not None:
            written = record.written(self._sum)
            self._lines.append(written)
            self._lines.sync()
            self._sum = written["sum"]

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, architecture: Architecture) -> Evaluation:
        return self._evaluations[architecture]

    def __iter__(self) -> Iterator[Architecture]:
        return iter(self._evaluations)

    def __len__(self) -> int:
        return len(self._evaluations)


_AGAIN = (
    "remove this line and all after it to measure them again, or the file to start the search over"
)


def _evaluations(rows: Iterator[Origin | EvaluationRecord]) -> Iterator[EvaluationRecord]:
    try:
        yield from (row for row in rows if isinstance(row, EvaluationRecord))
    except RunError as error:
        raise RunError(f"{error}; {_AGAIN}") from error


def _checked(
    record: EvaluationRecord,
    space: SearchSpace,
    costs: Mapping[str, Callable[[Architecture], int]],
) -> Evaluation:
    """The evaluation of a record, with the costs that its architecture has.

    Raises:
        RunError: It has others.
    """
    evaluation = Evaluation.of(record, space)
    if evaluation.costs.keys() != costs.keys():
        raise RunError(
            f"has the costs {', '.join(evaluation.costs)}, while this search needs "
            f"{', '.join(costs)}"
        )
    found = {name: cost(evaluation.architecture) for name, cost in costs.items()}
    if evaluation.costs != found:
        raise RunError(f"says {dict(evaluation.costs)} of a network that has {found}")
    return evaluation
