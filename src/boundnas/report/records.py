"""The files of a run folder as the report reads them, checked while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    RootModel,
    ValidationError,
    model_validator,
)

from boundnas.errors import RunError, SpaceError
from boundnas.space import Dimension, SearchSpace
from boundnas.store.files import find_bytes
from boundnas.store.held import HeldFolder

Choice = bool | int | float | str


class Record(BaseModel):
    """One JSON object; keys that the report has no use for may stand beside those it reads."""

    model_config = ConfigDict(frozen=True, strict=True)


class DimensionRecord(Record):
    """One entry of ``space.json``."""

    name: str
    kind: str
    choices: list[Choice]


class Space(RootModel[list[DimensionRecord]]):
    """``space.json``."""


class Environment(RootModel[dict[str, JsonValue]]):
    """``environment.json``: what the run ran on."""


class Metrics(Record):
    """One row of ``metrics.jsonl``; losses may be null where nothing was measured."""

    step: int
    loss_max: float | None
    loss_min: float | None
    loss_random: float | None
    cost_max: float
    cost_min: float
    learning_rate: float


class Boundaries(Record):
    """One row of ``boundaries.jsonl``: mean and standard deviation of every dimension."""

    step: int
    max: dict[str, tuple[float, float]]
    min: dict[str, tuple[float, float]]


class DimensionBounds(Record):
    """One dimension of ``bounds.json``: option probabilities and the values left to search."""

    name: str
    max: list[float]
    min: list[float]
    allowed: list[Choice]


class Bounds(Record):
    """``bounds.json``: the start and the end of boundary learning."""

    p_largest: float
    p_smallest: float
    dimensions: list[DimensionBounds]


def _usual(costs: dict[str, float]) -> dict[str, float]:
    missing = {"macs", "parameters"} - costs.keys()
    if missing:
        raise ValueError(f"no {' and '.join(sorted(missing))} among the costs")
    if min(costs["macs"], costs["parameters"]) <= 0:
        raise ValueError("macs and parameters are above 0")
    return costs


Costs = Annotated[dict[str, FiniteFloat], AfterValidator(_usual)]
"""Costs of a network by name, each in its own unit; MACs and parameters are always among them."""


Accuracy = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _ascending(cost_range: tuple[float, float]) -> tuple[float, float]:
    lower, upper = cost_range
    if not 0 < lower < upper:
        raise ValueError(f"a cost range is 0 < lower < upper, found {lower:g} to {upper:g}")
    return cost_range


CostRange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ascending)]
"""Lowest and highest cost that networks are wanted for, in the cost's own unit."""


class Evaluation(Record):
    """One row of ``search/evaluations.jsonl``, measured on validation data."""

    architecture: dict[str, Choice]
    costs: Costs
    accuracy: FiniteFloat
    images: int


class Network(Record):
    """One network of ``front.json``; ``folder`` is relative to the run folder."""

    architecture: dict[str, Choice]
    costs: Costs
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    folder: str | None = None


class Front(Record):
    """``front.json``: what validation data selects, inside and outside the range asked for."""

    cost_metric: str
    cost_range: CostRange
    networks: list[Network]
    outside: list[Network]

    @model_validator(mode="after")
    def _stand_where_they_belong(self) -> Front:
        lower, upper = self.cost_range
        for inside, networks in ((True, self.networks), (False, self.outside)):
            for n in networks:
                if self.cost_metric not in n.costs:
                    raise ValueError(f"a network has no {self.cost_metric}, the cost of this front")
                if inside != (lower <= n.costs[self.cost_metric] <= upper):
                    raise ValueError(
                        f"a network of {n.costs[self.cost_metric]:,.0f} {self.cost_metric} stands "
                        f"among those {'inside' if inside else 'outside'} {lower:,.0f} to "
                        f"{upper:,.0f}"
                    )
        if not [*self.networks, *self.outside]:
            raise ValueError("there is no network")
        return self


@dataclass(frozen=True)
class Run:
    """What a run folder holds; ``None`` where a later step has not written its file yet."""

    name: str
    space: SearchSpace
    metrics: Sequence[Metrics]
    boundaries: Sequence[Boundaries] | None
    bounds: Bounds | None
    evaluations: Sequence[Evaluation] | None
    front: Front | None
    config: str | None
    environment: dict[str, JsonValue] | None


R = TypeVar("R", bound=BaseModel)


def read_run(folder: Path) -> Run:
    """Read a run folder, during or after training, with or without a search.

    Args:
        folder: The run folder.

    Raises:
        RunError: The folder, ``space.json`` or ``metrics.jsonl`` is missing, there is no step
            yet, or a file is damaged. Names the file and the line.
    """
    try:
        held = HeldFolder(folder)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder}: no such run folder ({getattr(error, 'strerror', None) or error}); "
            "give the folder that training wrote"
        ) from error
    dimensions = read_record(folder / "space.json", Space, held)
    metrics = _rows(folder / "metrics.jsonl", Metrics, held)
    if dimensions is None or not metrics:
        name, found = ("metrics.jsonl", metrics) if dimensions else ("space.json", None)
        raise RunError(
            f"{folder / name} {'is missing' if found is None else 'holds no step yet'}: "
            "a report needs a run whose training has begun; train it first"
        )
    environment = read_record(folder / "environment.json", Environment, held)
    return Run(
        name=folder.resolve().name,
        space=_space(folder / "space.json", dimensions),
        metrics=metrics,
        boundaries=_rows(folder / "boundaries.jsonl", Boundaries, held),
        bounds=read_record(folder / "bounds.json", Bounds, held),
        evaluations=_rows(folder / "search" / "evaluations.jsonl", Evaluation, held),
        front=read_record(folder / "front.json", Front, held),
        config=_text(folder / "config.yaml", held),
        environment=None if environment is None else environment.root,
    )


def _space(path: Path, dimensions: Space) -> SearchSpace:
    try:
        return SearchSpace([Dimension(d.name, tuple(d.choices), d.kind) for d in dimensions.root])
    except SpaceError as error:
        raise RunError(f"{path}: {error}") from error


def _text(path: Path, held: HeldFolder) -> str | None:
    data = find_bytes(path, held=held)
    return None if data is None else data.decode(errors="replace")


def read_record(path: Path, kind: type[R], held: HeldFolder | None = None) -> R | None:
    """The record in a JSON file; none where there is no such file.

    Args:
        path: The file.
        kind: What it is to be.
        held: The held folder that it lies in, if it does.

    Raises:
        RunError: It cannot be read, or is no such record; names what is wrong with it.
    """
    data = find_bytes(path, held=held)
    return None if data is None else _parse(data, kind, str(path))


def _rows(path: Path, kind: type[R], held: HeldFolder) -> list[R] | None:
    """The rows of a journal; a last line without its newline was cut by a kill and is dropped."""
    data = find_bytes(path, held=held)
    if data is None:
        return None
    lines = data.split(b"\n")[:-1]
    return [_parse(line, kind, f"{path} line {i}") for i, line in enumerate(lines, 1)]


def _parse(data: bytes, kind: type[R], where: str) -> R:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{where}: {key + ': ' if key else ''}{first['msg']}; "
            "restore the file, or repeat the step that wrote it"
        ) from error
