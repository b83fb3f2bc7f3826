"""Files that a configuration names and that decide a run: what counts is what stands in them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from boundnas.settings.explain import own_error, shown

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class Content:
    """A file that was read with the configuration; equal where the same stands in it.

    Args:
        path: Where it lay.
        data: What stands in it.
    """

    path: Path = field(compare=False)
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(frozen=True)
class ReadFrom:
    """Marks a field of a configuration that is written as the path of a file.

    Args:
        what: What the file is.
    """

    what: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """In JSON it is the digest of what stands in the file."""
        written = core_schema.plain_serializer_function_ser_schema(_digest)
        return core_schema.with_info_plain_validator_function(self._read, serialization=written)

    def _read(self, value: Any, info: ValidationInfo) -> Content:
        if isinstance(value, Content):
            return value
        if not isinstance(value, str | Path):
            raise own_error(f"must be the path of {self.what}, found {shown(value)}")
        folder = (info.context or {}).get("folder", Path())
        path = Path(os.path.normpath(folder.resolve() / os.path.expanduser(value)))
        try:
            if path.is_file() and path.stat().st_size <= LARGEST:
                return Content(path, path.read_bytes())
        except OSError as error:
            said = error.strerror or error
            raise own_error(f"{path} cannot be read ({said}); check its permissions") from None
        raise own_error(
            f"{path} is no file, or none of at most {LARGEST:,} bytes; give the path of {self.what}"
        )


def _digest(content: Content | None) -> str | None:
    return None if content is None else content.digest
