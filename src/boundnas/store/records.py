"""What is written into a run folder and read from it again: one class for each record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    JsonValue,
    RootModel,
    ValidationError,
    model_validator,
)

from boundnas.errors import RunError
from boundnas.store.base import Record, Vouched, first_fault
from boundnas.store.classes import ClassResult
from boundnas.store.clip import ClipRecord
from boundnas.store.files import find_bytes
from boundnas.store.held import HeldFolder
from boundnas.store.lines import read_jsonl
from boundnas.store.times import said_amount
from boundnas.store.vouched import check_vouched
from boundnas.task import Task, shown

Choices = list[bool | int | float | str]
Values = dict[str, bool | int | float | str]
"""An architecture: the value of every dimension, by name."""


class Metric(Record):
    """What the score of a network is: higher is better.

    Args:
        name: As it is called, such as ``"accuracy"``.
        unit: As it is shown, such as ``"%"``; none by default.
        scale: What a score is multiplied by where it is shown: 100 for per cent, -1 for an error.
    """

    name: str
    unit: str = ""
    scale: FiniteFloat = 1.0

    @classmethod
    def of(cls, task: Task) -> Metric:
        """What a task measures networks by."""
        return cls(name=task.metric, unit=task.unit, scale=task.scale)

    @property
    def label(self) -> str:
        """Name and unit, for an axis."""
        return f"{self.name}, {self.unit}".rstrip(", ")

    def shown(self, score: float) -> str:
        """A score as people read it.

        Examples:
            >>> Metric(name="accuracy", unit="%", scale=100.0).shown(0.9786)
            '97.86 %'
        """
        return shown(score, self.scale, self.unit)


class DimensionRecord(Record):
    """One dimension of ``space.json``."""

    name: str
    kind: str
    choices: Choices


class SpaceRecord(RootModel[list[DimensionRecord]]):
    """``space.json``."""


class EnvironmentRecord(RootModel[dict[str, JsonValue]]):
    """``environment.json``: what the run ran on."""


class BoundsOfDimension(DimensionRecord):
    """One dimension of ``bounds.json``: option probabilities and the values left to search."""

    max: list[float]
    min: list[float]
    allowed: Choices


class LargestRecord(Record):
    """What the largest network is worth on validation data, of a start from trained weights."""

    metric: Metric
    before: float
    after: float

    @property
    def worse(self) -> bool:
        """Whether it lost by the training."""
        return self.after < self.before

    @property
    def said(self) -> str:
        """Both scores in words."""
        before, after = map(self.metric.shown, (self.before, self.after))
        than = "is worse than it started" if self.worse else "is no worse than it started"
        return (
            f"the largest network {than}: {self.metric.name} {after} on validation data after the "
            f"training, {before} with the weights that it came with"
        )


class BoundsRecord(Vouched):
    """``bounds.json``: start and end of boundary learning, and what else came of the training."""

    identity: dict[str, str]
    weights: str
    logs: dict[str, dict[str, JsonValue]]
    p_largest: float
    p_smallest: float
    dimensions: list[BoundsOfDimension]
    largest: LargestRecord | None = None
    clip: ClipRecord | None = None


def _counted(costs: dict[str, int]) -> dict[str, int]:
    missing = {"macs", "parameters"} - costs.keys()
    if missing:
        raise ValueError(f"no {' and '.join(sorted(missing))} among the costs")
    if min(costs["macs"], costs["parameters"]) <= 0 or min(costs.values()) < 0:
        raise ValueError("macs and parameters are above 0, and no cost is below")
    return costs


Costs = Annotated[dict[str, int], AfterValidator(_counted)]
"""Costs of a network by name, each in its own unit; MACs and parameters are always among them."""


class EvaluationRecord(Vouched):
    """One row of ``search/evaluations.jsonl``, measured on validation data."""

    architecture: Values
    costs: Costs
    score: FiniteFloat
    images: Annotated[int, Field(ge=1)]


class Origin(Vouched):
    """What evaluations or a front depend on, first of all the weights, and their metric."""

    identity: dict[str, str]
    metric: Metric

    @model_validator(mode="after")
    def _of_some_weights(self) -> Self:
        if "weights" not in self.identity:
            raise ValueError("identity does not say of which weights")
        return self


class Scored(Record):
    """A network that was selected and measured on test data."""

    architecture: Values
    costs: Costs
    validation: FiniteFloat
    test: FiniteFloat


class NetworkRecord(Scored):
    """One network of ``front.json``; ``folder`` is relative to the run folder."""

    folder: str | None = None


class Int8Record(Record):
    """What an INT8 file is worth, measured with the file itself.

    Args:
        images: Digest of all images that it was made and measured with, and of the task.
        validation: Its score on validation images; higher is better.
        test: Likewise on test images.
    """

    images: str
    validation: FiniteFloat
    test: FiniteFloat


class ExportRecord(Scored):
    """``architecture.json`` beside an exported network, which ``network`` is the SHA-256 of."""

    metric: Metric
    network: str
    int8: Int8Record | None = None


def _ascending(cost_range: tuple[float, float]) -> tuple[float, float]:
    lower, upper = cost_range
    if not 0 < lower < upper:
        raise ValueError(f"a cost range is 0 < lower < upper, found {lower:g} to {upper:g}")
    return cost_range


CostRange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ascending)]
"""Lowest and highest cost that networks are wanted for, in the cost's own unit."""


Ranges = Mapping[str, tuple[float, float]]
"""The range of every cost that networks are wanted for, by the cost's name."""


class FrontRecord(Origin):
    """``front.json``: what validation data selects, inside and outside the ranges asked for."""

    journal: str
    """The sum of the last row of the journal that it was selected from."""
    ranges: dict[str, CostRange] = Field(min_length=1)
    networks: list[NetworkRecord]
    outside: list[NetworkRecord]
    classes: list[ClassResult] = Field(default_factory=list)
    """Of every class, where the metric is a mean over images."""

    @model_validator(mode="after")
    def _stand_where_they_belong(self) -> Self:
        for inside, networks in ((True, self.networks), (False, self.outside)):
            for n in networks:
                unknown = self.ranges.keys() - n.costs.keys()
                if unknown:
                    raise ValueError(
                        f"a network has no {', '.join(sorted(unknown))}, a cost of this front"
                    )
                if inside != lies_inside(n.costs, self.ranges):
                    raise ValueError(
                        f"a network of {_named(n.costs, self.ranges)} stands among those "
                        f"{'inside' if inside else 'outside'} {said_ranges(self.ranges)}"
                    )
        if not [*self.networks, *self.outside]:
            raise ValueError("there is no network")
        for result in self.classes:
            if len(result.scores) != len(self.networks) + len(self.outside):
                raise ValueError(f"class {result.name!r} has not one score of each network")
        return self


def lies_inside(costs: Mapping[str, int], ranges: Ranges) -> bool:
    """Whether a network's costs lie inside all of the ranges, their ends included."""
    return all(lower <= costs[name] <= upper for name, (lower, upper) in ranges.items())


N = TypeVar("N", bound="HasCosts")


class HasCosts(Protocol):
    """A network whose costs are known."""

    @property
    def costs(self) -> Mapping[str, int]:
        """By name, each in its own unit."""


def nearest(networks: Iterable[N], ranges: Ranges) -> N:
    """The network that lies nearest to the ranges: its farthest cost is off by the least factor."""

    def distance(network: N) -> float:
        return max(
            max(math.log(lower / cost), math.log(cost / upper)) if cost else math.inf
            for cost, (lower, upper) in ((network.costs[n], r) for n, r in ranges.items())
        )

    return min(networks, key=distance)


def said_ranges(ranges: Ranges) -> str:
    """Ranges of costs as people read them.

    Examples:
        >>> said_ranges({"macs": (1e6, 5e6), "parameters": (1e4, 2e5)})
        '1,000,000 to 5,000,000 macs and 10,000 to 200,000 parameters'
    """
    return " and ".join(
        f"{said_amount(name, a)} to {said_amount(name, b)} {name}"
        for name, (a, b) in ranges.items()
    )


def _named(costs: Mapping[str, int], names: Iterable[str]) -> str:
    return " and ".join(f"{said_amount(name, costs[name])} {name}" for name in names)


R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, kind: type[R], held: HeldFolder | None = None) -> R | None:
    """The record in a JSON file; none where there is no such file.

    Args:
        path: The file.
        kind: What it is to be; the sum of one that carries a sum is checked.
        held: The held folder that it lies in, if it does.

    Raises:
        RunError: It cannot be read, or is no such record; names what is wrong with it.
    """
    data = find_bytes(path, held=held)
    return None if data is None else parsed(data, kind, str(path))


def read_rows(path: Path, kind: type[R], held: HeldFolder | None = None) -> list[R] | None:
    """The rows of a log; none where there is no such file. A torn last line is no row.

    Raises:
        RunError: A row is none of this kind; names the line.
    """
    data = find_bytes(path, held=held)
    if data is None:
        return None
    lines = data.split(b"\n")[:-1]
    return [parsed(line, kind, f"{path} line {i}") for i, line in enumerate(lines, 1)]


H = TypeVar("H", bound=Vouched)
V = TypeVar("V", bound=Vouched)


def read_journal(
    path: Path, head: type[H], kind: type[V], held: HeldFolder | None = None
) -> Iterator[H | V]:
    """The rows of a journal, each after it was checked; see `read_jsonl`.

    Args:
        path: The file.
        head: What the first row is to be.
        kind: What the others are to be.
        held: The held folder that it lies in, if it does.

    Raises:
        RunError: A row is none of this kind, or not what was written there by its sum; names the
            line.
    """
    return _checked(path, read_jsonl(path, held), head, kind)


def _checked(
    path: Path, rows: list[dict[str, Any]], head: type[H], kind: type[V]
) -> Iterator[H | V]:
    before = ""
    for number, row in enumerate(rows, 1):
        try:
            found = _valid(json.dumps(row).encode(), head if number == 1 else kind)
            before = check_vouched(row, before)
        except RunError as error:
            raise RunError(f"{path}, line {number}: {error}") from error
        yield found


def parsed(data: bytes, kind: type[R], where: str) -> R:
    """A record from its text.

    Raises:
        RunError: It is none, or not what was written by its sum.
    """
    try:
        found = _valid(data, kind)
    except RunError as error:
        raise RunError(
            f"{where}: {error}; restore the file, or repeat the step that wrote it"
        ) from error
    if isinstance(found, Vouched):
        try:
            check_vouched(json.loads(data))
        except RunError as error:
            raise RunError(
                f"{where}: {error}; restore the file, or remove it and search again"
            ) from error
    return found


def _valid(data: bytes, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise RunError(first_fault(error)) from error
