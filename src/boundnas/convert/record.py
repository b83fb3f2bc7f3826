"""What is kept of a recorded call: its form, where it was, what it cost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from boundnas.supernet.place import first_line
from boundnas.supernet.products import multiplications

_NOT_USERS = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parents[1]}/", "<")


class Counter(TorchDispatchMode):
    """Counts multiply-accumulates."""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.macs += multiplications(func.overloadpacket, args, kwargs or {}, result)
        return result


def form_of(value: Any) -> Any:
    """A value with shapes in place of tensors."""
    if isinstance(value, Tensor):
        return Form(value.shape, value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(form_of, value))
    if isinstance(value, Mapping):
        return {key: form_of(each) for key, each in value.items()}
    return value


def in_a_row(sizes: Any) -> Any:
    """Sizes as they are told, one after another or all as one list."""
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes


def holds_tensor(form: Any) -> bool:
    """Whether a tensor is, or is within, what a form is of."""
    if isinstance(form, Mapping):
        return any(map(holds_tensor, form.values()))
    return any(map(holds_tensor, form)) if isinstance(form, tuple) else isinstance(form, Form)


@dataclass(frozen=True)
class Form:
    """What is kept of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


def source() -> str:
    """File and line of the innermost frame that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_USERS):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def why(error: Exception) -> str:
    """Why something cannot be followed, in a line."""
    if isinstance(error, fx.proxy.TraceError):
        return str(error).splitlines()[0]
    return first_line(error).replace("Proxy", "recorded value")


def where(error: Exception) -> str:
    """The innermost of the user's lines that an error went through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_NOT_USERS):
            found = f", in {file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
