"""The configuration of a run: read from YAML with all faults at once, and written back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, Field, ValidationError
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

from boundnas.errors import ConfigError
from boundnas.settings import (
    ALONE,
    MAX_PROBLEMS,
    CostSettings,
    DataSettings,
    ExportSettings,
    Location,
    OneOrMore,
    SearchSettings,
    Settings,
    SpaceSettings,
    TrainSettings,
    dotted,
    each_once,
    explain,
    problem_list,
    quoted,
    shown,
)
from boundnas.store.files import find_bytes

MAX_BYTES = 64 * 1024
"""Largest configuration file that is read; a long one is a tenth of it."""

_MAX_DEPTH = 12


class RunConfig(Settings):
    """Everything a run is made from. Equal configurations on equal data give equal runs."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="name of the run and its folder: letters, digits and . _ -, at most 100",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**63 - 1,
        description="the one seed that every random number of the run follows",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where to compute; auto takes a GPU if there is one"
    )
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads; left out, PyTorch decides"
    )
    data: DataSettings = Field(default=DataSettings(), description="images to train and select on")
    space: SpaceSettings = Field(default=SpaceSettings(), description="search space")
    cost: Annotated[OneOrMore[CostSettings], AfterValidator(each_once)] = Field(
        description="cost range that the networks are made for; or a list of several"
    )
    train: TrainSettings = Field(description="training of the supernet")
    search: SearchSettings = Field(default=SearchSettings(), description="search after training")
    export: ExportSettings = Field(
        default=ExportSettings(), description="files written for the networks"
    )


_SECTIONS = ("data", "space", "cost", "train", "search", "export")


def read_config(path: str | Path) -> RunConfig:
    """Read and check a configuration file.

    Args:
        path: A YAML 1.2 file in UTF-8: one mapping, without tags, anchors and aliases.

    Returns:
        The configuration, every value within its range.

    Raises:
        ConfigError: The file cannot be read or has faults. The message lists every fault with its
            line, its dotted key (list positions count from 0), what was found, what is allowed
            and, where it can be told, what to write instead.
    """
    tree, problems = _parse(_read_text(Path(path)))
    data = _plain(tree)
    if isinstance(data, dict):
        # A section whose lines are all commented out is there, and empty.
        data |= {key: {} for key in _SECTIONS if key in data and data[key] is None}
    try:
        config = RunConfig.model_validate({} if data is None else data)
    except ValidationError as error:
        problems += _problems(tree, error)
    if problems:
        raise ConfigError(_report(path, problems))
    return config


def write_config(config: RunConfig) -> str:
    """The configuration as YAML text, with every value written out.

    Reading the text gives an equal configuration, and equal configurations give equal text.

    Examples:
        >>> cost, train = CostSettings(lower=1, upper=6), TrainSettings(steps=1000)
        >>> write_config(RunConfig(name="demo", cost=cost, train=train)).splitlines()[:3]
        ['name: demo', 'seed: 0', 'device: auto']
    """
    return "\n".join(_written(config)) + "\n"


# Reading -------------------------------------------------------------------------------------

_WHOLE = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float("inf") for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}

_REFUSED = object()
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


class _Problem(NamedTuple):
    line: int
    key: str
    text: str


@dataclass(frozen=True)
class _Node:
    """A value of the file and the line it is reported at: that of its key, if it has one."""

    line: int
    value: Any


class _UnreadableError(Exception):
    """Reading cannot go on after this problem."""

    def __init__(self, line: int, text: str, path: Location = ()) -> None:
        self.problem = _Problem(line, dotted(path), text)


def _read_text(path: Path) -> str:
    content = find_bytes(path, MAX_BYTES, error=ConfigError)
    if content is None:
        raise ConfigError(f"{path} does not exist; give the path of a configuration file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"not UTF-8 text, found the byte 0x{content[error.start]:02x}; save it as UTF-8"
        raise ConfigError(_report(path, [_Problem(line, dotted(()), text)])) from None


def _parse(text: str) -> tuple[_Node, list[_Problem]]:
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
        problem = _Problem(line, dotted(()), f"YAML cannot hold the character {found}; remove it")
    except (YAMLError, ArithmeticError, ValueError):
        # The parser itself trips over some texts, such as an escape beyond Unicode.
        problem = _Problem(builder.line, dotted(()), _NOT_YAML)
    return _Node(1, _REFUSED), [*builder.problems, problem]


def _syntax_problem(error: MarkedYAMLError) -> _Problem:
    said = (words for theirs, words in _SYNTAX.items() if theirs in error.problem)
    text = next(said, _NOT_YAML)
    context = error.context or ""
    # A key without a colon is noticed on the line after it.
    mark = error.context_mark if context.endswith("simple key") else error.problem_mark
    if "flow" in context or "quoted" in context:
        text += f" (it begins on line {error.context_mark.line + 1})"
    return _Problem(mark.line + 1, dotted(()), text)


class _Builder:
    """Builds the tree of one document from a parser's events and notes what is not used here."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self.problems: list[_Problem] = []
        self.line = 1

    def document(self) -> _Node:
        root = None
        for event in self._events:
            self.line = event.start_mark.line + 1
            if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
                self._note(self.line, (), "YAML 1.2 is read; remove the %YAML line")
            if isinstance(event, DocumentStartEvent) and root is not None:
                raise _UnreadableError(self.line, "a second document begins; keep one, without ---")
            if isinstance(event, NodeEvent):
                root = self._node(event, (), 1)
        return root or _Node(1, None)

    def _next(self) -> Event:
        event = next(self._events)
        self.line = event.start_mark.line + 1
        if isinstance(event, ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            raise _UnreadableError(
                self.line, "an escape for half a character; write the whole of it"
            )
        return event

    def _note(self, line: int, path: Location, text: str) -> None:
        self.problems.append(_Problem(line, dotted(path), text))

    def _node(self, event: Any, path: Location, line: int) -> _Node:
        if len(path) > _MAX_DEPTH:
            raise _UnreadableError(line, f"nested deeper than {_MAX_DEPTH} levels", path)
        if isinstance(event, AliasEvent):
            name = shown("*" + event.anchor)
            self._note(line, path, f"aliases are not used here, found {name}; write the value out")
            return _Node(line, _REFUSED)
        marked = self._note_marks(event, path, line)
        if isinstance(event, MappingStartEvent):
            return _Node(line, self._mapping(path))
        if isinstance(event, SequenceStartEvent):
            return _Node(line, self._sequence(path))
        return _Node(line, _REFUSED if marked else _scalar(event))

    def _note_marks(self, event: Any, path: Location, line: int) -> bool:
        tag = event.tag and event.tag.replace("tag:yaml.org,2002:", "!!")
        marks = {"anchors": event.anchor and f"&{event.anchor}", "tags": tag}
        for kind, found in marks.items():
            if found:
                self._note(line, path, f"{kind} are not used here, found {shown(found)}; remove it")
        return any(marks.values())

    def _sequence(self, path: Location) -> list[_Node]:
        items: list[_Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), self.line))
        return items

    def _mapping(self, path: Location) -> dict[str, _Node]:
        values: dict[str, _Node] = {}
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
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text) and len(text) <= 40:
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _REAL.fullmatch(text) else text


def _plain(node: _Node) -> object:
    if isinstance(node.value, dict):
        return {key: _plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(value) for value in node.value]
    return node.value


def _line(node: _Node, location: Location) -> int:
    """The line of the innermost value on the way to ``location`` that the file has."""
    for step in location:
        if not isinstance(node.value, dict | list):
            break
        try:
            node = node.value[step]  # type: ignore[index]
        except LookupError:
            break
    return node.line


def _problems(tree: _Node, error: ValidationError) -> Iterator[_Problem]:
    """What validation found, save where the value is already the subject of a problem."""
    faults = [
        (_line(tree, fault["loc"]), fault)
        for fault in error.errors(include_url=False)
        if fault["input"] is not _REFUSED or fault["type"] == "extra_forbidden"
    ]
    faults.sort(key=lambda found: found[0])
    for i, (line, fault) in enumerate(faults):
        # Explaining takes time, and those after the first hundred are counted only.
        text = explain(RunConfig, fault) if i < MAX_PROBLEMS else ""
        yield _Problem(line, dotted(fault["loc"]), text)


def _report(path: str | Path, problems: Iterable[_Problem]) -> str:
    ordered = sorted(problems, key=lambda problem: problem.line)
    return problem_list(str(path), [(f"line {line}", key, text) for line, key, text in ordered])


# Writing -------------------------------------------------------------------------------------


def _written(settings: BaseModel) -> Iterator[str]:
    for key, value in settings:
        if value is None and type(settings).model_fields[key].get_default() is None:
            continue  # as when the key is not there
        if isinstance(value, BaseModel):
            yield f"{key}:"
            yield from (f"  {line}" for line in _written(value))
        elif ALONE in type(settings).model_fields[key].metadata and len(value) == 1:
            yield f"{key}:"
            yield from (f"  {line}" for line in _written(value[0]))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{key}:"
            for item in value:
                first, *rest = _written(item)
                yield f"  - {first}"
                yield from (f"    {line}" for line in rest)
        else:
            yield f"{key}: {flow(value)}"


def flow(value: object) -> str:
    """A value as YAML text in one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(flow, value))}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = re.fullmatch("[A-Za-z][A-Za-z0-9._/-]*", value) and value not in _WORDS
        return value if plain else quoted(value)
    return str(value)
