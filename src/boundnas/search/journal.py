"""What the search has measured, kept so that a killed search loses only what is being measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundnas.errors import RunError, SpaceError
from boundnas.space import Architecture, SearchSpace
from boundnas.store.held import HeldFolder
from boundnas.store.lines import JsonLines, read_jsonl


@dataclass(frozen=True)
class Evaluation:
    """One architecture and what was measured of it.

    Args:
        architecture: The architecture.
        costs: Its costs by name, each in its own unit: ``macs`` of one image, ``parameters``, and
            that of the run, if it is another.
        accuracy: Fraction of examples classified correctly, 0 to 1, or an estimate of it.
        images: So many validation images the accuracy rests on: all of them, or those that
            candidates are screened on.
    """

    architecture: Architecture
    costs: Mapping[str, int]
    accuracy: float
    images: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able object with the architecture's values by name."""
        return {
            "architecture": self.architecture.values,
            "costs": dict(self.costs),
            "accuracy": self.accuracy,
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
                "costs": {"macs": int(), "parameters": int(), **others} as costs,
                "accuracy": int() | float() as accuracy,
                "images": int(images),
            } if len(row) == 4 and math.isfinite(accuracy) and _whole(others):
                try:
                    return cls(space.architecture(values), costs, accuracy, images)
                except SpaceError as error:
                    raise RunError(f"is of another search space: {error}") from error
        raise RunError(
            "is no evaluation, which has an architecture, costs (macs, parameters and that of the "
            f"run, whole numbers), accuracy and images, all finite; found {dict(row)}"
        )


def _whole(costs: Mapping[Any, object]) -> bool:
    return all(type(value) is int for value in costs.values())


class Journal(Mapping[Architecture, Evaluation]):
    """All evaluations of one search, on disk line by line, looked up by architecture.

    Args:
        path: A JSON Lines file, continued when it exists; a torn tail is cut.
        space: The search space that its architectures belong to.
        costs: Names of the costs that are known of each.
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
        costs: Collection[str] = ("macs", "parameters"),
        writes: bool = True,
        held: HeldFolder | None = None,
    ) -> None:
        self._evaluations: dict[Architecture, Evaluation] = {}
        for number, row in enumerate(read_jsonl(path, held), 1):
            try:
                evaluation = Evaluation.from_json(row, space)
                if evaluation.costs.keys() != set(costs):
                    raise RunError(
                        f"has the costs {', '.join(evaluation.costs)}, while this search "
                        f"needs {', '.join(costs)}"
                    )
                if evaluation.architecture in self._evaluations:
                    raise RunError("repeats an architecture of an earlier line")
            except RunError as error:
                raise RunError(
                    f"{path}, line {number}: {error}; remove this line to measure it again, "
                    "or the file to start the search over"
                ) from error
            self._evaluations[evaluation.architecture] = evaluation
        self._lines = JsonLines(path, held) if writes else None

    def append(self, evaluation: Evaluation) -> None:
        """Keep an evaluation of an architecture that has none yet.

        Raises:
            RunError: It cannot be written.
        """
        assert evaluation.architecture not in self, f"evaluated twice: {evaluation.architecture}"
        if self._lines is not None:
            self._lines.append(evaluation.to_json())
            self._lines.sync()
        self._evaluations[evaluation.architecture] = evaluation

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
