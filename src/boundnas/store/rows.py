"""The rows that a training writes."""

from __future__ import annotations

from boundnas.store.base import Record


class MetricsRow(Record):
    """One row of ``metrics.jsonl``; losses may be null where nothing was measured."""

    step: int
    loss_max: float | None
    loss_min: float | None
    loss_random: float | None
    cost_max: dict[str, int]
    cost_min: dict[str, int]
    penalty_max: float
    penalty_min: float
    score_max: float | None = None
    learning_rate: float


class BoundariesRow(Record):
    """One row of ``boundaries.jsonl``: mean and standard deviation of every dimension."""

    step: int
    max: dict[str, tuple[float, float]]
    min: dict[str, tuple[float, float]]
