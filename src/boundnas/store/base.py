"""What every record is: strict, frozen, and where it says so carrying a sum."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boundnas.store.vouched import vouched


class Record(BaseModel):
    """One JSON object: all of its keys and no others, of these types and no others."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Vouched(Record):
    """A record that carries a sum over what it says; see `boundnas.store.vouched`."""

    sum: str = Field(default="", exclude=True)
    """Of a record that was read; a record that is written gets its sum there."""

    def written(self, before: str = "") -> dict[str, Any]:
        """The JSON object with its sum.

        Args:
            before: The sum of the record that it follows, if it follows one.
        """
        return vouched(self.model_dump(mode="json"), before)


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a record, with its key if it has one."""
    first = error.errors()[0]
    key, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{key + ': ' if key else ''}{said}"
