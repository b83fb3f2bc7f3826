"""What a configuration names of one's own: all of it found at once, then called as it is needed.

A class or function gets by name what it has a parameter for of what there is by then, and the
arguments that stand beside it in the configuration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from boundnas.app.importing import ImportingError, at_line, imported
from boundnas.cost import Cost
from boundnas.data import Data, ImageData
from boundnas.errors import ConfigError
from boundnas.extras import require
from boundnas.fit.observers import Observer, TensorBoard
from boundnas.search.validation import Validation
from boundnas.settings import Location, Use, dotted, problem_list
from boundnas.supernet.place import first_line
from boundnas.task import Classification, Task
from boundnas.tasks import MultiLabel, NextToken, Regression, Segmentation


def _tensorboard(folder: Path) -> TensorBoard:
    return TensorBoard(folder / "tensorboard")


COME_ALONG: Mapping[str, Callable[..., Any]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "regression": Regression,
    "segmentation": Segmentation,
    "next_token": NextToken,
    "tensorboard": _tensorboard,
    "validation": Validation,
}
"""What is named without a place."""

_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "data": ((Data, ImageData), "boundnas.Data or what a set of boundnas.data gives"),
    "space": (nn.Module, "a boundnas.Supernet, or a network that is then made elastic"),
    "task": (Task, "a boundnas.tasks.Task"),
    "cost": (Cost, "a boundnas.cost.Cost"),
    "observers": (Observer, "a boundnas.Observer"),
}
"""What each key needs, and how that is called."""

_THERE: Mapping[str, tuple[str, ...]] = {
    "data": ("seed",),
    "space": ("seed", "data", "example"),
    "task": ("seed", "data", "example", "model"),
    "cost": ("seed", "data", "example", "model"),
    "observers": ("seed", "data", "example", "model", "folder"),
}
"""What there is when what a key names is called; the optimizer and the schedule are called by
the training, as from Python."""


class Own:
    """All that a configuration names of one's own.

    Args:
        named: What is named, by the places that it is named at, as `uses` finds it.

    Raises:
        ConfigError: Something is not there, cannot be imported, or cannot be called with its
            arguments; lists all such faults with their lines.
        ExtraError: TensorBoard is not installed.
    """

    def __init__(self, named: Iterable[tuple[Location, Use]]) -> None:
        self._found: dict[Location, tuple[Use, Any]] = {}
        self._lists: dict[str, tuple[Any, ...]] = {}
        faults = []
        for location, use in named:
            try:
                value = COME_ALONG[use.use] if use.place is None else imported(*use.place)
                _check_call(str(location[0]), use, value)
                self._found[location] = use, value
            except ImportingError as error:
                faults.append((location, use, str(error)))
        if faults:
            raise _refusal(faults)
        if any(use.use == "tensorboard" for use, _ in self._found.values()):
            require("observers: tensorboard", "tensorboard")

    def __bool__(self) -> bool:
        return bool(self._found)

    def made(self, *location: str | int, **there: Any) -> Any:
        """What is named at a place, called.

        Args:
            location: The place.
            there: What there is by now, by name.

        Raises:
            ConfigError: The call fails, or gives something else than is needed there.
        """
        use, value = self._found[location]
        kind, words = _KINDS[str(location[0])]
        made = value
        if not isinstance(value, kind):
            names = there.keys() & _names(value) - use.arguments.keys()
            given = {name: there[name] for name in sorted(names)}
            made = self._called(location, **given)
        if not isinstance(made, kind):
            found = f"gave {_described(made)}, where {words} is needed"
            raise _refusal([(location, use, found)])
        return made

    def each(self, key: str, **there: Any) -> tuple[Any, ...]:
        """All that a list names, called at the first time that it is asked for."""
        if key not in self._lists:
            named = (where for where in self._found if where[0] == key)
            self._lists[key] = tuple(self.made(*where, **there) for where in named)
        return self._lists[key]

    def caller(self, key: str) -> Callable[..., Any] | None:
        """What is named at a key, to be called later with arguments by position; none if not."""
        return (lambda *given: self._called((key,), *given)) if (key,) in self._found else None

    def _called(self, location: Location, *given: Any, **named: Any) -> Any:
        use, value = self._found[location]
        try:
            return value(*given, **named, **use.arguments)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's function may raise
            file = "" if use.place is None else use.place[0]
            said = f"calling {use.use} fails{at_line(file, error)}, {first_line(error)}"
            raise _refusal([(location, use, said)]) from error


def _check_call(key: str, use: Use, value: Any) -> None:
    """Refuse what cannot be called with its arguments and with what there will be.

    Raises:
        ImportingError: Says what it needs.
    """
    if key in _KINDS and isinstance(value, nn.Module):
        raise ImportingError(
            f"{use.use} is a network already; name a function that makes it, so that its weights "
            "follow from the seed"
        )
    if key in _KINDS and isinstance(value, _KINDS[key][0]) and not use.arguments:
        return
    if not callable(value):
        raise ImportingError(f"{use.use} is {_described(value)}; name a class or a function")
    if key in _KINDS and isinstance(value, type) and not issubclass(value, _KINDS[key][0]):
        raise ImportingError(f"{use.use} is a class, but not {_KINDS[key][1]}")
    there, signature = _THERE.get(key, ()), _signature(value)
    if key not in _KINDS or signature is None:
        return
    try:
        signature.bind(**{**dict.fromkeys(_names(value) & set(there)), **use.arguments})
    except TypeError as error:
        raise ImportingError(
            f"{use.use} ({', '.join(signature.parameters)}) cannot be called: {error}; arguments "
            "stand beside use: in {use: ..., name: value}, and parameters called "
            f"{', '.join(there)} are given"
        ) from None


def _signature(value: Callable[..., Any]) -> inspect.Signature | None:
    """How something is called, where Python knows it."""
    try:
        return inspect.signature(value)
    except (TypeError, ValueError):
        return None


def _names(value: Callable[..., Any]) -> set[str]:
    """Names of what can be given by name."""
    signature = _signature(value)
    found = signature.parameters.values() if signature is not None else ()
    return {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _described(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refusal(faults: list[tuple[Location, Use, str]]) -> ConfigError:
    """All faults in one message, as those of the configuration itself are told."""

    def rows() -> Iterator[tuple[str, ...]]:
        for location, use, text in faults:
            line = () if use.where is None else (f"line {use.where[1]}",)
            yield (*line, dotted(location), text)

    where = faults[0][1].where
    return ConfigError(problem_list("the configuration" if where is None else where[0], [*rows()]))
