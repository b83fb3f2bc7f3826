"""Rules of what takes the entries along axes together: sums, extremes, softmax."""

from __future__ import annotations

from typing import Any

from torch import nn

from boundnas.convert.axes import Axis, Map
from boundnas.convert.elementwise import elementwise
from boundnas.convert.reading import Call, NoRuleError, rule
from boundnas.convert.shapes import numbers


@rule(
    "mean", "sum", "amax", "amin", "prod", "var", "std", "logsumexp", "norm", "all", "any",
    "argmax", "argmin",
)  # fmt: skip
def reduction(call: Call) -> Map:
    """Axes are summed over; those of channels stay fixed then."""
    x = call.map
    at = 2 if call.name == "norm" else 1
    given = call.argument(at, "dim", call.kwargs.get("axis"))
    given = None if isinstance(given, bool) else given  # x.var(False) says how, not where
    gone = {i % len(x.shape) for i in (range(len(x.shape)) if given is None else numbers(given))}
    call.fix(*(x.axes[i] for i in gone), why="sums over its channels")
    return call.result(*_left(x, gone, len(call.form.shape)))


def _left(x: Map, gone: set[int], rank: int) -> list[Axis | None]:
    """The axes of a result of so many: those that are gone have one entry, or none where fewer."""
    if rank == len(x.shape):
        return [None if i in gone else a for i, a in enumerate(x.axes)]
    return [a for i, a in enumerate(x.axes) if i not in gone]


@rule("max", "min", "median", "topk", "std_mean", "var_mean")
def of_several(call: Call) -> Any:
    """Likewise, with two results; of two maps, or of numbers, entry by entry."""
    if call.name in ("max", "min") and (len(call.maps()) != 1 or len(call.args) > 2):
        return elementwise(call)
    if not isinstance(call.form, tuple):
        return reduction(call)
    x, last = call.map, call.name in ("median", "topk")
    given = call.argument(2 if call.name == "topk" else 1, "dim", -1 if last else None)
    gone = {i % len(x.shape) for i in numbers(given)}
    call.fix(*(x.axes[i] for i in gone), why="takes some of its channels together")
    kept = tuple(_left(x, gone, len(call.form[0].shape)))
    return tuple(Map(form.shape, kept) for form in call.form)


@rule(
    "softmax", "log_softmax", "softmin", "cumsum", "normalize", "flip", "roll", "sort", "glu",
    nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
def along(call: Call) -> Map:
    """Mixes the entries along some axes."""
    x, module = call.map, call.module
    if module is not None:
        given: Any = module.dim
    else:
        at = {"normalize": 2, "roll": 2}.get(call.name, 1)
        default = {"normalize": 1, "glu": -1}.get(call.name)
        given = call.argument(at, "dim", call.kwargs.get("dims", default))
        if call.name == "flip" and len(call.args) > 2:  # x.flip(2, 3)
            given = call.args[1:]
    if given is None or isinstance(call.form, tuple):
        raise NoRuleError("names no axis")
    gone = {i % len(x.shape) for i in numbers(given)}
    call.fix(*(x.axes[i] for i in gone), why="mixes its channels")
    return call.result(*_left(x, gone, len(x.shape)))
