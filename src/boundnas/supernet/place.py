"""Where in a user's code something happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from boundnas.errors import BoundNASError, SpaceError

_PACKAGE = Path(__file__).parent.parent
_NOT_USERS = tuple(
    f"{folder}{end}"
    for folder, end in [
        (Path(torch.__file__).parent, "/"),
        (_PACKAGE / "guard", "/"),
        (_PACKAGE / "elastic", "/"),
        (_PACKAGE / "supernet", "/"),
        (_PACKAGE / "space", "/"),
        (_PACKAGE / "convert", "/"),
    ]
)

_ELASTIC = f"{_PACKAGE / 'elastic'}/"
_BETWEEN = tuple(place for place in _NOT_USERS if place != _ELASTIC)


def is_users(frame: FrameType) -> bool:
    """Whether a frame runs a `forward` or what it calls, not a library below."""
    return not frame.f_code.co_filename.startswith((*_NOT_USERS, "<"))


def is_elastic() -> bool:
    """Whether what was called here was called by an elastic layer of the library itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(_ELASTIC)


def is_librarys(function: Any) -> bool:
    """Whether a function was written in an elastic layer of the library itself."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_ELASTIC)


def here() -> str:
    """File and line of the innermost of the user's frames."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame):
        frame = frame.f_back
    return "?" if frame is None else _text(frame.f_code.co_filename, frame.f_lineno)


def of(model: nn.Module) -> str:
    """File and line of a model's `forward`."""
    code = type(model).forward.__code__
    return _text(code.co_filename, code.co_firstlineno)


def first_line(error: BaseException) -> str:
    """An error of another library, short."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def failing(model: nn.Module, arch: object) -> Iterator[None]:
    """Within it, what fails in a model's ``forward`` is told with the line and the architecture.

    Raises:
        SpaceError: ``forward`` fails.
    """
    try:
        yield
    except (BoundNASError, MemoryError):
        raise
    except Exception as error:
        raise SpaceError(
            f"{raised(model, error.__traceback__)}: {type(model).__name__}.forward fails in "
            f"the architecture {arch}, {first_line(error)}"
        ) from error


def raised(model: nn.Module, trace: TracebackType | None) -> str:
    """File and line of the innermost of the user's frames that an error went through."""
    found = of(model)
    while trace is not None:
        if is_users(trace.tb_frame):
            found = _text(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _text(file: str, line: int) -> str:
    return f"{file}, line {line}"
