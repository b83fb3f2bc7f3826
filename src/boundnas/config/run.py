"""A configuration read from YAML, with all its faults at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from boundnas.config.tree import REFUSED, Node, Problem, line_at, parse, plain
from boundnas.errors import ConfigError
from boundnas.settings import (
    MAX_PROBLEMS,
    CostSettings,
    DataSettings,
    ExportSettings,
    OneOrMore,
    OrUse,
    SearchSettings,
    Settings,
    SpaceSettings,
    TrainSettings,
    Use,
    dotted,
    each_once,
    explain,
    problem_list,
    uses,
)
from boundnas.store.files import find_bytes

MAX_BYTES = 64 * 1024
"""Largest configuration file that is read; a long one is a tenth of it."""

TASKS = ("classification", "multi_label", "regression", "segmentation", "next_token")
"""Tasks that come along, by name."""

OBSERVERS = ("tensorboard", "validation")
"""Observers that come along, by name."""


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
    data: Annotated[DataSettings | Use, OrUse()] = Field(
        default=DataSettings(), description="images to train and select on"
    )
    space: Annotated[SpaceSettings | Use, OrUse()] = Field(
        default=SpaceSettings(), description="search space"
    )
    task: Annotated[Use, OrUse(TASKS)] | None = Field(
        default=None,
        description=f"what the networks are to do: {', '.join(TASKS)}, or a task of your own; left "
        "out, they tell classes apart",
    )
    cost: Annotated[OneOrMore[CostSettings], AfterValidator(each_once)] = Field(
        description="cost range that the networks are made for; or a list of several"
    )
    train: TrainSettings = Field(description="training of the supernet")
    trained: bool | None = Field(
        default=None,
        description="whether the weights of a network of your own are trained already; left out, "
        "those of a network that is made elastic are",
    )
    optimizer: Annotated[Use, OrUse()] | None = Field(
        default=None,
        description="makes the optimizer of the weights from groups of parameters, as "
        "torch.optim:AdamW; left out, SGD",
    )
    schedule: Annotated[Use, OrUse()] | None = Field(
        default=None,
        description="makes the schedule of step sizes from the optimizer and the number of steps, "
        "as torch.optim.lr_scheduler:CosineAnnealingLR; left out, warm-up and cosine decay",
    )
    observers: OneOrMore[Annotated[Use, OrUse(OBSERVERS)]] | None = Field(
        default=None,
        description=f"told of what happens: {', '.join(OBSERVERS)}, or observers of your own; one "
        "or a list",
    )
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
    path = Path(path)
    tree, problems = parse(_read_text(path))
    data = plain(tree)
    if isinstance(data, dict):
        # A section whose lines are all commented out is there, and empty.
        data |= {key: {} for key in _SECTIONS if key in data and data[key] is None}
    try:
        config = RunConfig.model_validate(
            {} if data is None else data, context={"folder": path.parent}
        )
    except ValidationError as error:
        problems += _problems(tree, error)
    if problems:
        raise ConfigError(_report(path, problems))
    for location, use in uses(config):
        # Frozen, as what it is made with decides a run; where it is written does not.
        object.__setattr__(use, "where", (str(path), line_at(tree, location)))
    return config


def named_task(text: str) -> Use:
    """A task that is named outside of a configuration, by a file from where the process is.

    Raises:
        ConfigError: It is no name.
    """
    try:
        given = {"folder": Path()}
        return TypeAdapter(Annotated[Use, OrUse(TASKS)]).validate_python(text, context=given)
    except ValidationError as error:
        raise ConfigError(f"task {error.errors()[0]['msg']}") from None


def _read_text(path: Path) -> str:
    content = find_bytes(path, MAX_BYTES, error=ConfigError)
    if content is None:
        raise ConfigError(f"{path} does not exist; give the path of a configuration file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"not UTF-8 text, found the byte 0x{content[error.start]:02x}; save it as UTF-8"
        raise ConfigError(_report(path, [Problem(line, dotted(()), text)])) from None


def _problems(tree: Node, error: ValidationError) -> Iterator[Problem]:
    """What validation found, save where the value is already the subject of a problem."""
    faults = [
        (line_at(tree, fault["loc"]), fault)
        for fault in error.errors(include_url=False)
        if fault["input"] is not REFUSED or fault["type"] == "extra_forbidden"
    ]
    faults.sort(key=lambda found: found[0])
    for i, (line, fault) in enumerate(faults):
        # Explaining takes time, and those after the first hundred are counted only.
        text = explain(RunConfig, fault) if i < MAX_PROBLEMS else ""
        yield Problem(line, dotted(fault["loc"]), text)


def _report(path: str | Path, problems: Iterable[Problem]) -> str:
    ordered = sorted(problems, key=lambda problem: problem.line)
    return problem_list(str(path), [(f"line {line}", key, text) for line, key, text in ordered])
