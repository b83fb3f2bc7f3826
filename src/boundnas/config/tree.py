"""The text of a configuration as a tree of values with their lines, without running any of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from boundnas.settings import Location, dotted, shown

_MAX_DEPTH = 12

_WHOLE = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float("inf") for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}

REFUSED = object()
"""Stands for a value that a problem was already noted for."""

_NOT_YAML = "not YAML; check the quotes, brackets and indentation here"
_SYNTAX = {
    "'\\t'": "a tab cannot stand here; indent with spaces",
    "mapping values are not allowed": "more than one key and one value; give every key a line of "
    "its own, indented like its neighbours, and put text that holds ': ' in quotes",
    "cannot start any token": "text that begins with this character needs quotes",
    "unknown escape": "a \\ in double quotes that YAML does not know; use single quotes",
    "expected <block end>": "does not line up with the lines above; indent like its neighbours",
    "could not find expected ':'": "a key needs ': ' and a value after it",
    "',' or '": "a list or mapping in brackets lacks a ',' or its closing bracket",
    "unexpected end of stream": "text in quotes is never closed",
    "YAML document": "YAML 1.2 is read; remove the %YAML line",
}
"""What the parser says (a part of it that tells the case) and what we say."""


class Problem(NamedTuple):
    """A fault: its line, the dotted key, and what there is to say."""

    line: int
    key: str
    text: str


@dataclass(frozen=True)
class Node:
    """A value of the file and the line it is reported at: that of its key, if it has one."""

    line: int
    value: Any


class _UnreadableError(Exception):
    """Reading cannot go on after this problem."""

    def __init__(self, line: int, text: str, path: Location = ()) -> None:
        self.problem = Problem(line, dotted(path), text)


def parse(text: str) -> tuple[Node, list[Problem]]:
    """The tree of the document and what it holds that a configuration may not.

    Works on the parser's events, so that no object is ever built from a tag, nothing is repeated
    by an alias, and nesting is cut off before it is deep.
    """
    builder = _Builder(YAML(typ="safe", pure=True).parse(text))
    try:
        return builder.document(), builder.problems
    except _UnreadableError as error:
        problem = error.problem
    except MarkedYAMLError as error:
        problem = _syntax_problem(error)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = shown(text[error.position])
        problem = Problem(line, dotted(()), f"YAML cannot hold the character {found}; remove it")
    except (YAMLError, ArithmeticError, ValueError):
        # The parser itself trips over some texts, such as an escape beyond Unicode.
        problem = Problem(builder.line, dotted(()), _NOT_YAML)
    return Node(1, REFUSED), [*builder.problems, problem]


def _syntax_problem(error: MarkedYAMLError) -> Problem:
    said = (words for theirs, words in _SYNTAX.items() if theirs in error.problem)
    text = next(said, _NOT_YAML)
    context = error.context or ""
    # A key without a colon is noticed on the line after it.
    mark = error.context_mark if context.endswith("simple key") else error.problem_mark
    if "flow" in context or "quoted" in context:
        text += f" (it begins on line {error.context_mark.line + 1})"
    return Problem(mark.line + 1, dotted(()), text)


class _Builder:
    """Builds the tree of one document from a parser's events and notes what is not used here."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self.problems: list[Problem] = []
        self.line = 1

    def document(self) -> Node:
        root = None
        for event in self._events:
            self.line = event.start_mark.line + 1
            if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
                self._note(self.line, (), "YAML 1.2 is read; remove the %YAML line")
            if isinstance(event, DocumentStartEvent) and root is not None:
                raise _UnreadableError(self.line, "a second document begins; keep one, without ---")
            if isinstance(event, NodeEvent):
                root = self._node(event, (), 1)
        return root or Node(1, None)

    def _next(self) -> Event:
        event = next(self._events)
        self.line = event.start_mark.line + 1
        if isinstance(event, ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            raise _UnreadableError(
                self.line, "an escape for half a character; write the whole of it"
            )
        return event

    def _note(self, line: int, path: Location, text: str) -> None:
        self.problems.append(Problem(line, dotted(path), text))

    def _node(self, event: Any, path: Location, line: int) -> Node:
        if len(path) > _MAX_DEPTH:
            raise _UnreadableError(line, f"nested deeper than {_MAX_DEPTH} levels", path)
        if isinstance(event, AliasEvent):
            name = shown("*" + event.anchor)
            self._note(line, path, f"aliases are not used here, found {name}; write the value out")
            return Node(line, REFUSED)
        marked = self._note_marks(event, path, line)
        if isinstance(event, MappingStartEvent):
            return Node(line, self._mapping(path))
        if isinstance(event, SequenceStartEvent):
            return Node(line, self._sequence(path))
        return Node(line, REFUSED if marked else _scalar(event))

    def _note_marks(self, event: Any, path: Location, line: int) -> bool:
        tag = event.tag and event.tag.replace("tag:yaml.org,2002:", "!!")
        marks = {"anchors": event.anchor and f"&{event.anchor}", "tags": tag}
        for kind, found in marks.items():
            if found:
                self._note(line, path, f"{kind} are not used here, found {shown(found)}; remove it")
        return any(marks.values())

    def _sequence(self, path: Location) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), self.line))
        return items

    def _mapping(self, path: Location) -> dict[str, Node]:
        values: dict[str, Node] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            line = self.line
            key = self._key(event, path, line)
            node = self._node(self._next(), (*path, key), line)
            if key in values:
                first = values[key].line
                self._note(line, (*path, key), f"given twice, first on line {first}; keep one")
            elif isinstance(event, ScalarEvent):
                values[key] = node
        return values

    def _key(self, event: Event, path: Location, line: int) -> str:
        if isinstance(event, ScalarEvent):
            self._note_marks(event, (*path, event.value), line)
            return event.value
        self._node(event, (*path, "?"), line)
        self._note(line, (*path, "?"), "a key must be a word; found a list, mapping or alias")
        return "?"


def _scalar(event: ScalarEvent) -> object:
    """A scalar by the rules of YAML 1.2, where ``1e-3`` is a number and ``no`` is text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in WORDS:
        return WORDS[text]
    if _WHOLE.fullmatch(text) and len(text) <= 40:
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _REAL.fullmatch(text) else text


def plain(node: Node) -> object:
    """The values alone."""
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [plain(value) for value in node.value]
    return node.value


def line_at(node: Node, location: Location) -> int:
    """The line of the innermost value on the way to ``location`` that the file has."""
    for step in location:
        if not isinstance(node.value, dict | list):
            break
        try:
            node = node.value[step]  # type: ignore[index]
        except LookupError:
            break
    return node.line
