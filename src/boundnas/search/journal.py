"""What the search has measured, kept so that a killed search loses only what is being measured."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundnas.errors import RunError, SpaceError
from boundnas.fit.identity import Identity, difference
from boundnas.space import Architecture, SearchSpace
from boundnas.store.files import set_aside
from boundnas.store.held import HeldFolder
from boundnas.store.lines import JsonLines, read_jsonl
from boundnas.store.records import Metric
from boundnas.store.vouched import check_vouched, vouched

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

    def to_json(self) -> dict[str, Any]:
        """JSON-able object with the architecture's values by name."""
        return {
            "architecture": self.architecture.values,
            "costs": dict(self.costs),
            "score": self.score,
            "images": self.images,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], space: SearchSpace) -> Evaluation:
        """The evaluation that ``to_json`` described.

        Raises:
            RunError: ``row`` is no evaluation of an architecture of ``space``.
        """
        match row:
            case {
                "architecture": dict(values),
                "costs": {"macs": macs, "parameters": parameters, **others} as costs,
                "score": float() as score,
                "images": images,
            } if (
                len(row) == 4
                and math.isfinite(score)
                and _whole(1, macs, parameters, images)
                and _whole(0, *others.values())
            ):
                try:
                    return cls(space.architecture(values), costs, score, images)
                except SpaceError as error:
                    raise RunError(f"is of another search space: {error}") from error
        raise RunError(
            "is no evaluation, which has an architecture, costs (macs, parameters and that of the "
            "run), a finite score and a number of images, costs and images whole numbers above "
            f"0; found {dict(row)}"
        )


def _whole(least: int, *numbers: object) -> bool:
    return all(type(number) is int and number >= least for number in numbers)


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
        rows = read_jsonl(path, held)
        if rows and self._is_other(path, rows[0], identity, writes, held):
            rows = []
        for number, row in enumerate(rows[1:], 2):
            try:
                evaluation = _read(row, space, costs)
                self._sum = check_vouched(row, self._sum)
                if evaluation.architecture in self._evaluations:
                    raise RunError("repeats an architecture of an earlier line")
            except RunError as error:
                raise RunError(
                    f"{path}, line {number}: {error}; remove this line and all after it to "
                    "measure them again, or the file to start the search over"
                ) from error
            self._evaluations[evaluation.architecture] = evaluation
        self._lines = JsonLines(path, held) if writes else None
        if not rows:
            self._append({"identity": identity, "metric": metric.model_dump()})

    def _is_other(
        self,
        path: Path,
        first: Mapping[str, Any],
        identity: Identity,
        writes: bool,
        held: HeldFolder | None,
    ) -> bool:
        """Whether the first line says that the file is of another search; then it is set aside."""
        try:
            self._sum = check_vouched(first)
        except RunError as error:
            raise RunError(
                f"{path}, line 1: does not say what was measured ({error}); remove the file to "
                "start the search over"
            ) from error
        different = difference(first.get("identity"), identity)
        if different is None:
            return False
        self._sum = ""
        if writes:
            _log.warning(
                "%s: was measured with %s; it is kept as %s and the search measures anew",
                path,
                different,
                set_aside(path, held).name,
            )
        return True

    def append(self, evaluation: Evaluation) -> None:
        """Keep an evaluation of an architecture that has none yet.

        Raises:
            RunError: It cannot be written.
        """
        assert evaluation.architecture not in self, f"evaluated twice: {evaluation.architecture}"
        self._append(evaluation.to_json())
        self._evaluations[evaluation.architecture] = evaluation

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._lines is not None:
            written = vouched(row, self._sum)
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


def _read(
    row: Mapping[str, Any],
    space: SearchSpace,
    costs: Mapping[str, Callable[[Architecture], int]],
) -> Evaluation:
    """The evaluation of a row, with the costs that its architecture has.

    Raises:
        RunError: It is none, or has others.
    """
    said = {name: value for name, value in row.items() if name != "sum"}
    evaluation = Evaluation.from_json(said, space)
    if evaluation.costs.keys() != costs.keys():
        raise RunError(
            f"has the costs {', '.join(evaluation.costs)}, while this search needs "
            f"{', '.join(costs)}"
        )
    found = {name: cost(evaluation.architecture) for name, cost in costs.items()}
    if evaluation.costs != found:
        raise RunError(f"says {dict(evaluation.costs)} of a network that has {found}")
    return evaluation
