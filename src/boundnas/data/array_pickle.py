"""Reads pickled arrays and plain containers without running anything that a pickle can name.

A pickle is a program for a stack machine. This one executes the instructions that the published
files of CIFAR and downsampled ImageNet consist of and refuses all others. Of the functions a pickle
may ask for it knows five by name, none of which is ever looked up or called: what they would make
of plain values is worked out here, with types, shapes and lengths checked.
"""

from __future__ import annotations

import math
import os
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from boundnas.errors import DataError

MAX_INSTRUCTIONS = 4_000_000
"""An instruction can take a hundred times its own length of memory; real files need 600,000."""

NUMBERS = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"})
"""Types an array may have, as numpy abbreviates them, without the byte order."""

_ARRAY, _DTYPE, _NDARRAY, _ENCODE = "an empty array", "dtype", "ndarray", "encode"
_FUNCTIONS = {
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy._core.multiarray _reconstruct": _ARRAY,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
}


def read_pickle(file: BinaryIO, where: str) -> dict[str, Any]:
    """The mapping in a pickle file of protocol 2 to 4, as Python 2 and 3 write them.

    Memory grows with the bytes that are there, not with what they announce.

    Args:
        file: Open for reading; must be able to seek.
        where: How messages name the file.

    Returns:
        Numbers, text, bytes, tuples, lists, mappings and read-only numpy arrays of numbers by their
        keys. Texts of Python 2, which are bytes, come as text in Latin-1.

    Raises:
        DataError: The file is damaged or holds anything else.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            # pickletools warns of escapes that Python does not know, in text that is then kept.
            warnings.simplefilter("ignore", DeprecationWarning)
            for count, (opcode, argument, _) in enumerate(
                pickletools.genops(cast(IO[bytes], _WithinFile(file)))
            ):
                if count >= MAX_INSTRUCTIONS:
                    raise ValueError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
                machine.execute(opcode.name, argument)
        (result,) = machine.stack
        if not isinstance(result, dict):
            raise ValueError(f"it holds a {type(result).__name__} in place of a mapping")
        return {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in result.items()}
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{where}: is damaged or no pickle of arrays, text and numbers, and nothing else is "
            f"read from a pickle ({error}); fetch the file again from its official page"
        ) from error


class _WithinFile:
    """A file of which never more is asked for than is left: Python would set the memory aside."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = file.seek(0, os.SEEK_END)
        file.seek(0)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data

    def readline(self, size: int | None = None) -> bytes:
        # Numbers and names of functions; the longest that can be meant has 37 letters.
        data = self.file.readline(100)
        self.left -= len(data)
        return data


@dataclass(frozen=True)
class _Function:
    """A name that a pickle may mention: a value of its own, not what the name stands for."""

    name: str


@dataclass
class _Dtype:
    """A numpy dtype in the making."""

    number: str
    order: str = "="


class _Unfilled:
    """An array that has neither shape nor content yet, and where the memo has it."""

    def __init__(self) -> None:
        self.keys: list[int] = []


class _Machine:
    """The stack machine, over plain values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:
        """One instruction, by its name in ``pickletools``."""
        if name in _VALUES:
            self.stack.append(_VALUES[name](argument))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise ValueError(f"the instruction {name} is not allowed")

    def mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pack(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        start = len(self.stack) - count
        self.stack[start:] = [tuple(self.stack[start:])]

    def pack_items(self) -> None:
        packed = tuple(self.items())
        self.stack.append(packed)

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("a value is appended to what is no list")
        self.stack[-1].extend(values)

    def update(self, pairs: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(pairs) % 2:
            raise ValueError("an entry is put into what is no mapping")
        if not all(isinstance(key, str | bytes) for key in pairs[::2]):
            raise ValueError("a key is neither text nor bytes")
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def remember(self, key: int | None) -> None:
        key, value = len(self.memo) if key is None else key, self.stack[-1]
        self.memo[key] = value
        if isinstance(value, _Unfilled):
            value.keys.append(key)

    def mention(self, name: str) -> None:
        if name not in _FUNCTIONS:
            raise ValueError(f"it asks for {name[:80].replace(' ', '.')!r}, which is not allowed")
        self.stack.append(_Function(_FUNCTIONS[name]))

    def mention_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it asks for what is no name")
        self.mention(f"{module} {name}")

    def apply(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Function) or type(arguments) is not tuple:
            raise ValueError("it calls what is no function")
        match function.name, arguments:
            case "an empty array", (_Function("ndarray"), *_):
                self.stack.append(_Unfilled())
            case "dtype", (str(number), *_) if number in NUMBERS:
                self.stack.append(_Dtype(number))
            case "encode", (str(text), "latin1" | "latin-1"):
                self.stack.append(text.encode("latin-1"))
            case _:
                raise ValueError(f"it calls {function.name} in an unusual way")

    def fill(self) -> None:
        """Give a dtype its byte order, or an array its shape, type and content."""
        state, target = self.stack.pop(), self.stack[-1]
        match target, state:
            case _Dtype(), (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                target.order = order
            case _Unfilled(), (int(), tuple(shape), _Dtype(), bool(columns), str() | bytes()):
                self.replace(target, _array(state[4], shape, state[2], columns))
            case _:
                raise ValueError("it sets the inside of something that is no array of numbers")

    def replace(self, unfilled: _Unfilled, array: NDArray) -> None:
        self.stack[-1] = array
        for key in unfilled.keys:
            self.memo[key] = array


def _array(content: str | bytes, shape: tuple[Any, ...], dtype: _Dtype, columns: bool) -> NDArray:
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise ValueError("an array has a shape that cannot be")
    data = content.encode("latin-1") if isinstance(content, str) else content
    kind = np.dtype(dtype.order + dtype.number)
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"an array of shape {shape} and type {kind} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order="F" if columns else "C")


def _unchanged(argument: Any) -> Any:
    return argument


_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "INT", "BINFLOAT"), _unchanged),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"), _unchanged),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _unchanged),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
}
"""Instructions that put a value on the stack."""

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.pack_items(),
    "TUPLE1": lambda machine, _: machine.pack(1),
    "TUPLE2": lambda machine, _: machine.pack(2),
    "TUPLE3": lambda machine, _: machine.pack(3),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.items()),
    "SETITEM": lambda machine, _: machine.update([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.update(machine.items()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET", "GET"),
        lambda machine, key: machine.stack.append(machine.memo[key]),
    ),
    "GLOBAL": _Machine.mention,
    "STACK_GLOBAL": lambda machine, _: machine.mention_from_stack(),
    "REDUCE": lambda machine, _: machine.apply(),
    "BUILD": lambda machine, _: machine.fill(),
}
"""Instructions that work on the stack."""
