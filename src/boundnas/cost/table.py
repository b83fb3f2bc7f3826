"""A table of how long the blocks of a supernet take on a machine, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from boundnas.errors import CostError
from boundnas.store.base import Record, first_fault
from boundnas.store.files import read_bytes
from boundnas.store.times import counted

LIMIT = 1 << 28
"""Bytes of the largest table that is read."""

SPEARMAN, ERROR = 0.95, 0.1
"""The gate: least rank correlation and largest mean error of a table that is relied on."""

NEAR = 0.1
"""Networks whose prediction is off by so much at most count as predicted."""

Nanoseconds = Annotated[int, Field(ge=0, le=2**53)]


class Axis(Record):
    """What a block's time depends on: a dimension, or the sum of several.

    Args:
        dimensions: Names. Of several, what they contribute adds up.
        points: Number of places along it that were measured, numbered from 0.
        at: Of each dimension, where each of its options lies among them: at one, between two, or,
            with none, nowhere: there is no such block then.
    """

    dimensions: Annotated[tuple[str, ...], Field(min_length=1)]
    points: Annotated[int, Field(ge=1)]
    at: tuple[tuple[FiniteFloat | None, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.at) != len(self.dimensions):
            raise ValueError(f"{len(self.dimensions)} dimensions with the places of {len(self.at)}")
        if any(x is not None and not 0 <= x <= self.points - 1 for part in self.at for x in part):
            raise ValueError(f"a place beyond its {self.points} points")
        if len(self.at) > 1 and any(None in part for part in self.at):
            raise ValueError("a sum of dimensions with an option that is nowhere")
        return self


class BlockTimes(Record):
    """The times of one block.

    Args:
        name: As of `boundnas.latency.Block`.
        axes: What it depends on; one that adds up several dimensions stands last.
        times: Nanoseconds at each combination of points, those of the last axis next to one
            another; 0 where there is no such block.
    """

    name: str
    axes: tuple[Axis, ...]
    times: tuple[Nanoseconds, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = math.prod(axis.points for axis in self.axes)
        if len(self.times) != wanted:
            raise ValueError(
                f"{self.name} has {len(self.times)} times where its grid has {wanted} places, so "
                "that entries are missing or too many"
            )
        if any(len(axis.dimensions) > 1 for axis in self.axes[:-1]):
            raise ValueError(f"{self.name}: an axis of several dimensions stands last")
        return self


class DimensionOf(Record):
    """A dimension of the space that a table is of."""

    name: str
    kind: str
    choices: tuple[bool | int | FiniteFloat | str, ...]


class ModelOf(Record):
    """The supernet that a table is of.

    Args:
        input: Its inputs, in words.
        dimensions: Its space.
        layers: A digest of what its networks compute.
    """

    input: str
    dimensions: tuple[DimensionOf, ...]
    layers: str


class Held(Record):
    """A whole network that was timed to see what the predictions are worth.

    Args:
        predicted: By the table.
        measured: The median.
        macs: Multiply-accumulates of a sample.
        by_macs: What these alone predict, with an offset and a scale fitted to the same networks
            as the table's.
        quartiles: Of what was measured; none in tables that did not keep them.
    """

    predicted: Nanoseconds
    measured: Annotated[Nanoseconds, Field(gt=0)]
    macs: Annotated[int, Field(ge=0)]
    by_macs: Nanoseconds
    quartiles: tuple[Nanoseconds, Nanoseconds] | None = None


class Validation(Record):
    """Networks that the table was not fitted to: what was predicted and what was measured."""

    networks: Annotated[tuple[Held, ...], Field(min_length=2)]

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured times."""
        return spearman([n.predicted for n in self.networks], self._measured)

    @property
    def spearman_of_macs(self) -> float:
        """Rank correlation of multiply-accumulates and measured times."""
        return spearman([n.macs for n in self.networks], self._measured)

    @property
    def error(self) -> float:
        """Mean absolute error of the predictions, as a part of what was measured."""
        return _mean(self._errors)

    @property
    def error_by_macs(self) -> float:
        """Likewise of those from multiply-accumulates."""
        return _mean(self._errors_by_macs)

    @property
    def near(self) -> float:
        """Share of the networks that are predicted to within a tenth."""
        return _mean([error <= NEAR for error in self._errors])

    @property
    def near_by_macs(self) -> float:
        """Likewise from multiply-accumulates."""
        return _mean([error <= NEAR for error in self._errors_by_macs])

    @property
    def is_met(self) -> bool:
        """Whether the predictions are good enough to be relied on."""
        return self.spearman >= SPEARMAN and self.error <= ERROR

    @property
    def _measured(self) -> list[int]:
        return [n.measured for n in self.networks]

    @property
    def _errors(self) -> list[float]:
        return [abs(n.predicted / n.measured - 1) for n in self.networks]

    @property
    def _errors_by_macs(self) -> list[float]:
        return [abs(n.by_macs / n.measured - 1) for n in self.networks]


class LatencyTable(Record):
    """How long every block of a supernet takes on a machine, in nanoseconds.

    Args:
        schema_version: Of the file; another one means something else.
        model: The supernet.
        runtime: What the blocks ran in.
        runtime_version: Its version.
        threads: Threads that it computed with.
        batch: Samples in a pass.
        machine: The machine, as `boundnas.engine.machine.fingerprint` describes it.
        blocks: The times.
        offset: Nanoseconds that whole networks take beside their blocks; below zero where short
            ones take less than these.
        scale: What the times of blocks are multiplied by.
        noise: How far repeated times of one block lay apart, as a part of them.
        validation: What the predictions are worth, where that was measured.
    """

    schema_version: Literal[1] = 1
    model: ModelOf
    runtime: str
    runtime_version: str
    threads: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    machine: dict[str, str]
    blocks: Annotated[tuple[BlockTimes, ...], Field(min_length=1)]
    offset: int = 0
    scale: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    noise: Annotated[FiniteFloat, Field(ge=0)] | None = None
    validation: Validation | None = None

    @property
    def where(self) -> str:
        """What was measured on what, in words."""
        threads, samples = counted(self.threads, "thread"), counted(self.batch, "sample")
        cpu = self.machine.get("cpu", "an unknown processor")
        return f"{self.runtime} {self.runtime_version}, {threads}, {samples} a pass, {cpu}"

    @classmethod
    def read(cls, path: Path | str) -> LatencyTable:
        """A table from its file.

        Raises:
            CostError: There is none, or it is damaged, of an unknown schema, or has an entry that
                is missing or no whole number of nanoseconds; names the entry.
        """
        return cls.parsed(read_bytes(Path(path), LIMIT, error=CostError), str(path))

    @classmethod
    def parsed(cls, data: bytes, where: str) -> LatencyTable:
        """Likewise, from what stands in the file.

        Args:
            data: The file's content.
            where: What it is called in errors.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise CostError(
                f"{where}: is no latency table as this version writes it: {first_fault(error)}; "
                "measure it again with boundnas.latency.measure, or restore the file"
            ) from error

    def written(self) -> dict[str, object]:
        """The JSON object."""
        return self.model_dump(mode="json")


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation: that of the ranks, equal numbers having the mean of theirs; 0 if all are.

    Examples:
        >>> spearman([1, 2, 3], [10, 20, 30]), spearman([1, 1], [1, 2])
        (1.0, 0.0)
    """
    ranks = []
    for numbers in map(np.asarray, (one, other)):
        below = (numbers[:, None] > numbers).sum(1)
        ranks.append(below + ((numbers[:, None] == numbers).sum(1) - 1) / 2)
    a, b = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0
