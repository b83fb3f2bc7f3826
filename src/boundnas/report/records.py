"""The files of a run folder as the report reads them, checked while they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

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

from boundnas.errors import RunError, SpaceError
from boundnas.space import Dimension, SearchSpace
from boundnas.store.files import find_bytes
from boundnas.store.held import HeldFolder
from boundnas.store.lines import check_rows
from boundnas.store.records import Metric, Record
from boundnas.store.vouched import check_vouched

Choice = bool | int | float | str


_END = 10**18
"""Later than any step."""


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
    kind: str
    choices: list[Choice]
    max: list[float]
    min: list[float]
    allowed: list[Choice]


class Bounds(Record):
    """``bounds.json``: start and end of boundary learning, and what else came of the training."""

    identity: dict[str, str]
    weights: str
    logs: dict[Literal["metrics", "boundaries"], dict[str, JsonValue]]
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
    score: FiniteFloat
    images: Annotated[int, Field(ge=1)]


class Origin(Record):
    """What evaluations or a front depend on, first of all the weights, and their metric."""

    identity: dict[str, str]
    metric: Metric

    @model_validator(mode="after")
    def _of_some_weights(self) -> Self:
        if "weights" not in self.identity:
            raise ValueError("identity does not say of which weights")
        return self


class Network(Record):
    """One network of ``front.json``; ``folder`` is relative to the run folder."""

    architecture: dict[str, Choice]
    costs: Costs
    validation: FiniteFloat
    test: FiniteFloat
    folder: str | None = None


class Front(Origin):
    """``front.json``: what validation data selects, inside and outside the range asked for."""

    journal: str
    """The sum of the last row of the journal that it was selected from."""
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
    metric: Metric | None
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
    space = _space(folder / "space.json", dimensions)
    environment = read_record(folder / "environment.json", Environment, held)
    bounds = read_record(folder / "bounds.json", Bounds, held)
    journal = folder / "search" / "evaluations.jsonl"
    origins, evaluations, sums = _evaluations(journal, held)
    front = read_record(folder / "front.json", Front, held)
    if front is not None:
        front = _without_missing(front, folder)
    if front is not None and evaluations is not None and front.journal not in sums:
        raise RunError(
            f"{journal}: lacks rows that front.json was selected from; restore the file, or "
            f"remove both and run boundnas search {folder}"
        )
    if bounds is not None:
        _check_weights(folder, bounds, *origins, front)
        _check_trained(folder, bounds, dimensions, held)
    return Run(
        name=folder.resolve().name,
        space=space,
        metrics=metrics,
        boundaries=_rows(folder / "boundaries.jsonl", Boundaries, held),
        bounds=bounds,
        metric=next((origin.metric for origin in (front, *origins) if origin), None),
        evaluations=evaluations,
        front=front,
        config=_text(folder / "config.yaml", held),
        environment=None if environment is None else environment.root,
    )


def _without_missing(front: Front, folder: Path) -> Front:
    """A front whose networks name their folders only where these are there by now."""

    def of(network: Network) -> Network:
        there = network.folder is not None and (folder / network.folder).is_dir()
        return network if there else network.model_copy(update={"folder": None})

    return front.model_copy(update={"networks": list(map(of, front.networks))})


def _evaluations(
    path: Path, held: HeldFolder
) -> tuple[list[Origin], list[Evaluation] | None, list[str]]:
    """The journal's first line, if it is there yet, its evaluations, and the sums of all lines."""
    data = find_bytes(path, held=held)
    if data is None:
        return [], None, []
    lines = data.split(b"\n")[:-1]
    origins = [_parse(line, Origin, f"{path} line 1") for line in lines[:1]]
    rows = [_parse(line, Evaluation, f"{path} line {i}") for i, line in enumerate(lines[1:], 2)]
    sums = [""]
    for number, line in enumerate(lines, 1):
        sums.append(_checked_sum(line, sums[-1], f"{path} line {number}: "))
    return origins, rows, sums


def _checked_sum(data: bytes, before: str, where: str) -> str:
    try:
        return check_vouched(json.loads(data), before)
    except RunError as error:
        raise RunError(
            f"{where}{error}; restore the file, or remove it and search again"
        ) from error


def _check_trained(folder: Path, bounds: Bounds, space: Space, held: HeldFolder) -> None:
    """Refuse logs or a space that are not those of the finished training."""
    if [(d.name, d.kind, d.choices) for d in bounds.dimensions] != [
        (d.name, d.kind, d.choices) for d in space.root
    ]:
        raise RunError(
            f"{folder / 'space.json'}: is not the space of bounds.json; restore the file, or run "
            f"boundnas search {folder}, which writes it anew"
        )
    for name, written in bounds.logs.items():
        path = folder / f"{name}.jsonl"
        if find_bytes(path, held=held) is not None:
            try:
                check_rows(path, _END, written, held)
            except RunError as error:
                raise RunError(f"{error} by bounds.json; restore the file") from error


def _check_weights(folder: Path, bounds: Bounds, *found: Origin | None) -> None:
    """Refuse a journal or front of other weights than the training ended with."""
    for origin in found:
        if origin is not None and origin.identity["weights"] != bounds.weights:
            what = "front.json is" if isinstance(origin, Front) else "search/evaluations.jsonl is"
            raise RunError(
                f"{folder}: {what} of other weights than the training ended with by bounds.json; "
                f"remove it and run boundnas search {folder}"
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
    if data is None:
        return None
    found = _parse(data, kind, str(path))
    if isinstance(found, Front | Bounds):
        _checked_sum(data, "", f"{path}: ")
    return found


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
