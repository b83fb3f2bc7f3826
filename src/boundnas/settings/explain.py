"""Faults in settings, explained in the user's words.

The message about a bad value is made from its field's range and description, so it cannot disagree
with what is checked.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Location = tuple[str | int, ...]
"""Keys and list positions from the outermost settings down to a value."""

MAX_PROBLEMS = 100
"""So many are listed in one message; the rest is counted."""

OWN = "boundnas"
"""The type of the errors raised here, whose text is already in the user's words."""

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BOUNDS = {
    "ge": ("at least", operator.ge),
    "gt": ("above", operator.gt),
    "le": ("at most", operator.le),
    "lt": ("below", operator.lt),
}
_SWITCHES = {
    "true": "true",
    "yes": "true",
    "on": "true",
    "false": "false",
    "no": "false",
    "off": "false",
}

_OTHER_NAMES = {
    "lamda": "penalty_weight",
    "lambda": "penalty_weight",
    "penalty": "penalty_weight",
    "lr": "learning_rate",
    "policy_lr": "policy_learning_rate",
    "wd": "weight_decay",
    "ema_decay": "ema",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "bs": "batch_size",
    "gradient_accumulation": "accumulate",
    "accumulate_grad_batches": "accumulate",
    "batch": "batch_size",
    "iterations": "steps",
    "iters": "steps",
    "max_steps": "steps",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "threshold": "tau",
    "generations": "rounds",
    "population": "initial",
    "population_size": "initial",
    "mutation_rate": "mutation_probability",
    "mutation_prob": "mutation_probability",
    "dataset": "set",
    "path": "folder",
    "val_fraction": "validation_fraction",
    "resolution": "image_size",
    "flip": "mirror",
    "hflip": "mirror",
    "horizontal_flip": "mirror",
    "padding": "shift",
    "grayscale": "channels",
    "symlinks": "links",
    "width_mult": "width",
    "width_multiplier": "width",
    "kernel_size": "kernel",
    "expansion": "intermediate",
    "channels": "output",
    "model": "family",
    "flops": "metric",
    "min_macs": "lower",
    "max_macs": "upper",
    "num_threads": "threads",
    "random_seed": "seed",
}
_OTHER_VALUES = {
    "flops": "macs",
    "mmacs": "macs",
    "mflops": "macs",
    "params": "parameters",
    "gpu": "cuda",
    "silu": "swish",
    "hswish": "swish",
    "slimmable": "width_only",
    "fashion": "fashion_mnist",
    "cifar": "cifar10",
    "cifar-10": "cifar10",
    "cifar-100": "cifar100",
    "imagenet32": "imagenet_d",
    "ilsvrc2012": "imagenet",
    "imagefolder": "folder",
    "all": "both",
    "bfloat16": "bf16",
    "fp32": "float32",
    "torch": "pt2",
}


class _Target(NamedTuple):
    """What the settings hold at a location."""

    kind: Any
    limits: Mapping[str, Any]
    about: str


def problem_list(subject: str, rows: Sequence[tuple[str, ...]]) -> str:
    """The message for a number of problems: a heading and one line each, columns aligned.

    Examples:
        >>> print(problem_list("run.yaml", [("line 3", "tau", "low"), ("line 20", "seed", "odd")]))
        run.yaml has 2 problems
          line 3   tau   low
          line 20  seed  odd
    """
    listed, more = rows[:MAX_PROBLEMS], len(rows) - MAX_PROBLEMS
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    widths[-1] = 0
    lines = ["  ".join(map(str.ljust, row, widths)) for row in listed]
    heading = f"{subject} has {len(rows)} problem{'s' * (len(rows) != 1)}"
    return "\n  ".join([heading, *lines, *[f"and {more} more"] * (more > 0)])


def dotted(location: Location) -> str:
    """How a location is written in messages.

    Examples:
        >>> dotted(("space", "stages", 3, "output"))
        'space.stages[3].output'
    """
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("_", "").replace("-", "").isalnum() and len(step) <= 40
            text += "." * bool(text) + (step if plain else shown(step))
    return text or "(top level)"


def quoted(text: str) -> str:
    r"""Text in double quotes on one line, with the escapes that YAML and Python share.

    Examples:
        >>> print(quoted('two\tsmall "words"'))
        "two\tsmall \"words\""
    """
    escaped = (f"\\{c}" if c in '"\\' else c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f'"{"".join(escaped)}"'


def shown(value: object) -> str:
    """A value as it is quoted in messages: short, on one line, as one would write it in YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value if len(value) <= 40 else value[:37] + "...")
        case int() if abs(value) >= 10**30:
            return "a number of more than 30 digits"
        case int() | float():
            return str(value)
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return f"a {type(value).__name__}"


def explain(settings: type[BaseModel], detail: ErrorDetails) -> str:
    """One fault that validation found, in the user's words: found, allowed, and what to do.

    Args:
        settings: The outermost class that was validated.
        detail: The fault as pydantic describes it. Only its type, place and input are used.
    """
    kind, location, value = detail["type"], detail["loc"], detail["input"]
    if kind == OWN:
        place = location[: len(location) - detail["ctx"]["depth"]]
        return str(detail["ctx"]["text"]).replace("{here}", dotted(place) + "." if place else "")
    if kind == "extra_forbidden":
        return _unknown_key(settings, location)
    target = _target(settings, location)
    about = f" ({target.about})" if target.about else ""
    if kind == "missing":
        return f"required; give {_allowed(target)}{about}"
    if kind == "too_short":
        return f"needs at least one entry, found an empty list{about}"
    if kind == "too_long":
        return f"may have at most {target.limits['max_length']} entries, found {len(value)}{about}"
    return f"must be {_allowed(target)}{about}, found {shown(value)}{_hint(target, value)}"


def own_error(text: str, depth: int = 0) -> PydanticCustomError:
    """A fault in our words; ``depth`` is how far it lies below the settings that noticed it."""
    return PydanticCustomError(OWN, "{text}", {"text": text, "depth": depth})


def fault(location: Location, text: str) -> InitErrorDetails:
    """A fault at a place, in our words."""
    return {"type": own_error(text, len(location)), "loc": location, "input": None}


def again(detail: ErrorDetails) -> InitErrorDetails:
    """A fault that validation reported, in the form in which it can be raised once more."""
    kind, context = detail["type"], detail.get("ctx", {})
    error = PydanticCustomError(OWN, "{text}", context) if kind == OWN else kind
    return {"type": error, "loc": detail["loc"], "input": detail["input"], "ctx": context}


def _target(settings: type[BaseModel], location: Location) -> _Target:
    target = _Target(settings, {}, "")
    for step in location:
        if isinstance(step, str) and get_origin(target.kind) is tuple:  # one stands for a list
            target = _unwrapped(get_args(target.kind)[0], about=target.about)
        if isinstance(step, str):
            field = target.kind.model_fields[step]
            target = _unwrapped(field.annotation, field.metadata, field.description or "")
        else:
            target = _unwrapped(get_args(target.kind)[0], about=target.about)
    return target


def _unwrapped(annotation: Any, marks: Sequence[Any] = (), about: str = "") -> _Target:
    """An annotation without ``Annotated`` and ``None``, and the limits found on the way."""
    limits = {
        name: getattr(mark, name)
        for mark in marks
        for name in (*_BOUNDS, "max_length")
        if getattr(mark, name, None) is not None
    }
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        flat = [m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else [e])]
        inner = _unwrapped(annotation, flat, about)
    elif get_origin(annotation) in (Union, UnionType):
        inner = _unwrapped(get_args(annotation)[0], (), about)
    else:
        inner = _Target(annotation, {}, about)
    return inner._replace(limits={**inner.limits, **limits})


def _allowed(target: _Target) -> str:
    kind, limits = target.kind, target.limits
    if get_origin(kind) is Literal:
        *most, last = get_args(kind)
        return f"{', '.join(most)} or {last}"
    if get_origin(kind) is tuple:
        return "a list"
    if kind not in _KINDS:
        return f"a mapping with keys such as {', '.join(list(kind.model_fields)[:3])}"
    if kind is int and limits["le"] == limits["ge"] + 1:
        return f"{limits['ge']} or {limits['le']}"
    if "ge" in limits and "le" in limits:
        return f"{_KINDS[kind]} from {limits['ge']:,} to {limits['le']:,}"
    bounds = [f"{words} {limits[name]:,}" for name, (words, _) in _BOUNDS.items() if name in limits]
    return " ".join([_KINDS[kind], " and ".join(bounds)]).rstrip()


def _hint(target: _Target, value: object) -> str:
    """What to write instead, where the value tells."""
    kind = target.kind
    if get_origin(kind) is tuple:
        item = _unwrapped(get_args(kind)[0]).kind
        fits = value in get_args(item) if isinstance(value, str) else type(value) is item
        return f"; write [{listed((value,))}]" if fits else ""
    if kind is str and isinstance(value, int | float):
        return "; put it in quotes"
    if kind in (int, float) and isinstance(value, str | float):
        return _number_hint(target, value)
    if not isinstance(value, str):
        return ""
    word = value[:40].lower()
    if get_origin(kind) is Literal:
        close = difflib.get_close_matches(_OTHER_VALUES.get(word, word), get_args(kind), 1)
        return f"; did you mean {close[0]}?" if close else ""
    return f"; write {_SWITCHES[word]}" if kind is bool and word in _SWITCHES else ""


def _number_hint(target: _Target, value: str | float) -> str:
    plain = value.replace("_", "").replace(",", ".") if isinstance(value, str) else value
    try:
        found = float(plain)
    except ValueError:
        return ""
    limits = target.limits
    allowed = all(holds(found, limits[n]) for n, (_, holds) in _BOUNDS.items() if n in limits)
    if not allowed or not math.isfinite(found) or (target.kind is int and found % 1):
        return ""
    quotes = " without quotes" * (isinstance(value, str) and plain == value)
    return f"; write {number(found)}{quotes}"


def _unknown_key(settings: type[BaseModel], location: Location) -> str:
    parent, key = location[:-1], str(location[-1])
    kind = _target(settings, parent).kind
    siblings = list((get_args(kind)[0] if get_origin(kind) is tuple else kind).model_fields)
    paths: dict[str, list[str]] = {}
    for path in _paths(settings):
        paths.setdefault(path.split(".")[-1], []).append(path)
    asked = key[:80].lower().replace("-", "_")
    name = _nearest(asked.split(".")[-1], siblings, list(paths))
    if name is None:
        return f"unknown key; allowed here: {', '.join(siblings)}"
    if name in siblings:
        return f"unknown key; did you mean {dotted((*parent, name))}?"
    whole = asked if "." in asked else dotted((*parent, asked))
    path = difflib.get_close_matches(whole, paths[name], 1, 0)[0]
    top = " at the top level" * (bool(parent) and "." not in path)
    return f"unknown key; did you mean {path}{top}?"


def _nearest(word: str, siblings: Sequence[str], everywhere: Sequence[str]) -> str | None:
    for known in (siblings, everywhere):
        for name in (_OTHER_NAMES.get(word, word), word):
            if name in known:
                return name
    for known in (siblings, everywhere):
        for close in difflib.get_close_matches(word, known, 1, 0.7):
            return close
    return None


ALONE = "one may stand for a list of one"
"""Marks a field; see `boundnas.settings.base.OneOrMore`."""


def _paths(settings: type[BaseModel], place: str = "") -> Iterator[str]:
    """The dotted keys of settings and of all settings inside them; ``[]`` follows a list."""
    for name in settings.model_fields:
        yield place + name
        inner, brackets = _target(settings, (name,)).kind, ""
        if get_origin(inner) is tuple:
            alone = ALONE in settings.model_fields[name].metadata
            inner, brackets = _unwrapped(get_args(inner)[0]).kind, "" if alone else "[]"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, f"{place}{name}{brackets}.")


def number(value: float) -> str:
    """A number as people write it: 3 for 3.0."""
    return str(value).removesuffix(".0")


def listed(values: Sequence[object]) -> str:
    """Values in one line, text as it is."""
    return ", ".join(value if isinstance(value, str) else shown(value) for value in values)
