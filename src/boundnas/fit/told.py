"""What users' objects and functions are, as short texts that are equal where these are."""

from __future__ import annotations

import enum
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

LIBRARIES = {"torch", "boundnas", *sys.stdlib_module_names}
"""Their code is known by their versions."""

_BY_TEXT = (bytes, complex, range, slice, torch.dtype, torch.device, enum.Enum)

_DEEP = 4
"""Objects within objects are followed so far."""


def digest(*parts: Tensor | str) -> str:
    """The first 16 hexadecimal digits of SHA-256 over tensors, their types and shapes, and texts.

    Examples:
        >>> digest(torch.arange(3), "and more")
        '5f922def34e55e0f'
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(f"{len(part)} ".encode() + part.encode(errors="surrogatepass"))
            continue
        found.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        if not part.is_meta:
            plain = part.detach().cpu().contiguous().reshape(-1)
            found.update(plain.view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def is_plain(value: object) -> bool:
    """Whether the text of a value is all of it, in every process."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return all(is_plain(getattr(value, each.name)) for each in fields(value))
    return value is None or isinstance(value, bool | int | float | str)


def plain_of(owner: object) -> dict[str, object]:
    """The plain attributes of an object that are no private ones."""
    held = sorted(getattr(owner, "__dict__", {}).items())
    return {name: value for name, value in held if name[0] != "_" and is_plain(value)}


def told(value: Any, deep: int = _DEEP) -> object:
    """What a value is: something whose text is the same in every process, and of equal values.

    Functions are told by their code, what they close over, and the constants and functions of
    their module that they use; objects by their attributes.

    Args:
        value: Anything that a user may hold in an attribute.
        deep: How far objects within it are followed.
    """
    if is_plain(value):
        return value
    if isinstance(value, _BY_TEXT):
        return repr(value)
    if isinstance(value, Tensor):
        return f"tensor {digest(value)}"
    if isinstance(value, list | tuple):
        return [told(each, deep) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(told(each, deep)) for each in value)
    if isinstance(value, dict):
        return sorted((str(told(k, deep)), told(v, deep)) for k, v in value.items())
    return _named(value), list(_inside(value, deep - 1)) if deep > 0 else []


def globals_of(function: FunctionType, deep: int = _DEEP) -> dict[str, object]:
    """Constants and functions of a user's module that a function uses, by name."""
    names = sorted(_names(function.__code__) & function.__globals__.keys())
    used = ((name, function.__globals__[name]) for name in names)
    return {
        name: told(value, deep - 1)
        for name, value in used
        if is_plain(value)
        or isinstance(value, Tensor)
        or (deep > 0 and isinstance(value, FunctionType) and not _is_known(value))
    }


def _inside(value: Any, deep: int) -> Iterator[object]:
    """What else than its name tells one of two values from the other."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield told([*cells, *(value.__defaults__ or ())], deep)
        yield told(value.__kwdefaults__, deep)
        if not _is_known(value):
            yield _code(value.__code__)
            yield globals_of(value, deep)
    elif isinstance(value, partial):
        yield told([value.func, *value.args], deep)
        yield told(value.keywords, deep)
    elif isinstance(value, MethodType):
        yield told([value.__func__, value.__self__], deep)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):  # of NumPy
        yield told(value.tolist() if value.dtype.hasobject else _of_array(value), deep)
    elif isinstance(value, nn.Module) or _package(type(value)) in ("torch", "boundnas"):
        yield {k: v for k, v in plain_of(value).items() if k != "training"}
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield told({k: v for k, v in vars(value).items() if k[0] != "_"}, deep)
        yield told([f for f in vars(type(value)).values() if isinstance(f, FunctionType)], deep)


def _named(value: Any) -> str:
    """The name, and that of the library; a user's file may lie elsewhere the next time."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    package = _package(kind)
    return f"{package}.{kind.__qualname__}" if package in LIBRARIES else str(kind.__qualname__)


def _of_array(value: Any) -> str:
    return f"{value.dtype} {value.shape} {digest(value.tobytes().hex())}"


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def _is_known(function: FunctionType) -> bool:
    return _package(function) in LIBRARIES


def _within(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


def _names(code: CodeType) -> set[str]:
    return {name for each in _within(code) for name in each.co_names}


def _code(code: CodeType) -> str:
    """A digest of names, constants and instructions, of the code within it too."""
    return digest(
        *(
            f"{each.co_code.hex()} {each.co_names} "
            f"{[told(c) for c in each.co_consts if not isinstance(c, CodeType)]}"
            for each in _within(code)
        )
    )
