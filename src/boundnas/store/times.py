"""How long networks take: records of what was measured, in nanoseconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from boundnas.store.base import Record

LATENCY = "latency"
"""The name of the cost that is predicted nanoseconds."""

NETWORK = "network"
"""What a network is called among timed files that was timed without one."""

Nanoseconds = Annotated[int, Field(ge=0)]


class TimesRecord(Record):
    """How long one pass takes.

    Args:
        median: Of all that was timed.
        lower: The lower quartile.
        upper: The upper quartile.
    """

    median: Nanoseconds
    lower: Nanoseconds
    upper: Nanoseconds

    @property
    def said(self) -> str:
        """Median and quartiles as people read them.

        Examples:
            >>> TimesRecord(median=1_234_567, lower=1_200_000, upper=1_300_000).said
            '1.235 ms (quartiles 1.2 to 1.3)'
        """
        return f"{ms(self.median)} ms (quartiles {ms(self.lower)} to {ms(self.upper)})"


class LatencyRecord(Record):
    """``latency.json`` beside an exported network: how long it takes, as it was measured.

    Args:
        runtime: What ran it.
        version: Of the runtime.
        threads: So many threads computed.
        batch: Samples in a pass.
        machine: The processor.
        times: Of each file by its name; of the network itself under `NETWORK`.
    """

    runtime: str
    version: str
    threads: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    machine: str
    times: dict[str, TimesRecord] = Field(min_length=1)

    @property
    def unquantized(self) -> TimesRecord:
        """That of the network itself, or of its float file; else of what there is."""
        floats = [times for name, times in self.times.items() if "int8" not in name]
        return (*floats, *self.times.values())[0]

    @property
    def where(self) -> str:
        """What was measured on what, in words."""
        threads, samples = counted(self.threads, "thread"), counted(self.batch, "sample")
        return f"{self.runtime} {self.version}, {threads}, {samples} a pass, {self.machine}"


def said_amount(name: str, value: float) -> str:
    """So much of a cost as people read it.

    Args:
        name: The cost's.
        value: In its own unit.

    Examples:
        >>> said_amount("macs", 5e6), said_amount("latency", 8e6)
        ('5,000,000', '8 ms')
    """
    if name == LATENCY:
        return f"{ms(value)} ms"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.10g}"


def ms(nanoseconds: float) -> str:
    """Nanoseconds as milliseconds, with four digits.

    Examples:
        >>> ms(8_123_456), ms(71_234)
        ('8.123', '0.07123')
    """
    return f"{nanoseconds / 1e6:.4g}"


def counted(number: int, noun: str) -> str:
    """A number of things in words.

    Examples:
        >>> counted(1, "thread"), counted(2, "thread")
        ('1 thread', '2 threads')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
