"""What is written into a run folder and read from it again: one class for each record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, FiniteFloat

from boundnas.task import Task, shown


class Record(BaseModel):
    """One JSON object; keys that nobody here has a use for may stand beside those it reads."""

    model_config = ConfigDict(frozen=True, strict=True)


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

        Example:
            >>> Metric(name="accuracy", unit="%", scale=100.0).shown(0.9786)
            '97.86 %'
        """
        return shown(score, self.scale, self.unit)
