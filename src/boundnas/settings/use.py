"""What a configuration names of one's own: where it lies, and what it is called with."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from boundnas.settings.explain import own_error, shown

FORMS = "FILE.py:NAME or module:NAME"
"""How the place of something of one's own is written."""

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_PLACE = re.compile(rf"(?P<module>.+\.py|{_NAME}):(?P<name>{_NAME})")


@dataclass(frozen=True)
class Use:
    """A class or function of one's own, or one that comes along, with what it is called with.

    In a configuration it is written as ``FILE.py:NAME`` or ``module:NAME``, with arguments as
    ``{use: FILE.py:NAME, argument: value}``.

    Args:
        use: Its place, or the name of what comes along.
        arguments: What it is called with, by name.
        where: The configuration and the line that it stands in.
    """

    use: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    where: tuple[str, int] | None = field(default=None, compare=False)

    @property
    def place(self) -> tuple[str, str] | None:
        """File or module, and name in it; none of what comes along."""
        found = _PLACE.fullmatch(self.use)
        return None if found is None else (found["module"], found["name"])

    def written(self, folder: Path | None = None) -> dict[str, Any]:
        """As a mapping of a configuration.

        Args:
            folder: That of the configuration, which files are then written relative to.
        """
        use, place = self.use, self.place
        if folder is not None and place is not None and os.path.isabs(place[0]):
            use = f"{os.path.relpath(place[0], folder.resolve())}:{place[1]}"
        return {"use": use, **self.arguments}


@dataclass(frozen=True)
class OrUse:
    """Marks a field of a configuration in whose place something of one's own may be named.

    Args:
        names: Of what comes along and is called too.
    """

    names: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """What stands first in a union is what the field holds otherwise."""
        written = core_schema.plain_serializer_function_ser_schema(_dumped)
        if source is Use:
            return core_schema.with_info_plain_validator_function(
                lambda value, info: self._read(value, None, info), serialization=written
            )
        return core_schema.with_info_wrap_validator_function(
            self._read, handler.generate_schema(get_args(source)[0]), serialization=written
        )

    def _read(
        self, value: Any, otherwise: Callable[[Any], Any] | None, info: ValidationInfo
    ) -> Any:
        is_place = isinstance(value, str) and (":" in value or value.endswith(".py"))
        is_call = isinstance(value, Mapping) and "use" in value
        if isinstance(value, Use):
            return value
        if otherwise is not None and not (is_place or is_call):
            return otherwise(value)
        given = dict(value) if is_call else {"use": value}
        use = given.pop("use")
        if not isinstance(use, str) or not (_PLACE.fullmatch(use) or use in self.names):
            raise own_error(self._allowed(use))
        _check_arguments(given)
        return Use(_absolute(use, (info.context or {}).get("folder")), given)

    def _allowed(self, found: object) -> str:
        known = f"{', '.join(self.names)}, or one of your own as {FORMS}"
        close = difflib.get_close_matches(str(found), self.names, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if isinstance(found, str) and found.endswith(".py"):
            hint = f"; write {found}:NAME, with the name of the class or function in it"
        return f"must be {known if self.names else FORMS}, found {shown(found)}{hint}"


def uses(value: object, location: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Use]]:
    """All that settings name of one's own, each with its location."""
    if isinstance(value, Use):
        yield location, value
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from uses(inner, (*location, number))
    elif hasattr(value, "model_fields_set"):
        for key, inner in value:  # type: ignore[attr-defined]  # settings give their fields
            yield from uses(inner, (*location, key))


def _absolute(use: str, folder: Path | None) -> str:
    """A place whose file is relative to a folder, wherever the process is."""
    found = _PLACE.fullmatch(use)
    if folder is None or found is None or not found["module"].endswith(".py"):
        return use
    file = os.path.normpath(folder.resolve() / os.path.expanduser(found["module"]))
    return f"{file}:{found['name']}"


def _check_arguments(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if not name.isidentifier():
            raise own_error(f"an argument has a name as Python knows it, found {shown(name)}")
        if not _is_finite(value):
            raise own_error(f"the argument {name} must be made of finite numbers")


def _is_finite(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _dumped(value: object) -> object:
    return value.written() if isinstance(value, Use) else value
