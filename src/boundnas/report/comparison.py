"""The raw numbers of a comparison, as ``comparison.json`` keeps them."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, FiniteFloat

from boundnas.errors import RunError
from boundnas.store.base import Record
from boundnas.store.records import CostRange, Metric, read_record

FrontRow = tuple[int | FiniteFloat, FiniteFloat, FiniteFloat]
"""Cost, validation score and test score of a network of a front."""


class RawRecord(Record):
    """Raw numbers, beside which there is what was computed from them."""

    model_config = ConfigDict(extra="ignore")


class SeedRecord(RawRecord):
    """What one run found."""

    front: list[FrontRow]


class GroupRecord(RawRecord):
    """Runs that differ in their seed only."""

    label: str
    seeds: dict[str, SeedRecord] = Field(min_length=1)


class Comparison(RawRecord):
    """The part of ``comparison.json`` that all the rest of it is computed from."""

    metric: Metric
    cost_range: CostRange
    groups: list[GroupRecord] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """The raw numbers of an earlier comparison.

        Raises:
            RunError: The file is missing, damaged or no comparison.
        """
        found = read_record(path, cls)
        if found is None:
            raise RunError(f"{path}: is missing; give the comparison.json of a comparison")
        return found
