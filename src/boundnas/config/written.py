"""A configuration as YAML text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from pathlib import Path

from pydantic import BaseModel

from boundnas.config.run import RunConfig
from boundnas.config.tree import WORDS
from boundnas.fit.trained import GENTLE
from boundnas.settings import ALONE, Content, Use, quoted
from boundnas.store.folder import KEPT


def write_config(config: RunConfig, folder: Path | None = None) -> str:
    """The configuration as YAML text, with every value written out that it decides.

    Reading the text gives an equal configuration, and equal configurations give equal text.

    Args:
        config: The configuration.
        folder: Where the text is written to; files of one's own are then named relative to it,
            and a latency table by its copy there.

    Examples:
        >>> from boundnas.settings import CostSettings, TrainSettings
        >>> cost, train = CostSettings(lower=1, upper=6), TrainSettings(steps=1000)
        >>> write_config(RunConfig(name="demo", cost=cost, train=train)).splitlines()[:3]
        ['name: demo', 'seed: 0', 'device: auto']
    """
    # Of a network of one's own these defaults may be others, as its weights may be trained.
    left = GENTLE.keys() - config.train.model_fields_set if isinstance(config.space, Use) else set()
    return "\n".join(_written(config, folder, left)) + "\n"


def _written(settings: BaseModel, folder: Path | None, left: Set[str]) -> Iterator[str]:
    for key, value in settings:
        if key in left:
            continue
        if value is None and type(settings).model_fields[key].get_default() is None:
            continue  # as when the key is not there
        if isinstance(value, Use):
            yield f"{key}: {flow(value, folder)}"
        elif isinstance(value, BaseModel):
            yield f"{key}:"
            yield from (f"  {line}" for line in _written(value, folder, left))
        elif ALONE in type(settings).model_fields[key].metadata and len(value) == 1:
            yield f"{key}:"
            yield from (f"  {line}" for line in _written(value[0], folder, left))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{key}:"
            for item in value:
                first, *rest = _written(item, folder, left)
                yield f"  - {first}"
                yield from (f"    {line}" for line in rest)
        else:
            yield f"{key}: {flow(value, folder)}"


def flow(value: object, folder: Path | None = None) -> str:
    """A value as YAML text in one line; files of one's own are named relative to a folder."""
    if isinstance(value, Use):
        said = value.written(folder)
        return flow(said if value.arguments else said["use"])
    if isinstance(value, Content):
        # The digest has a line differ where what stands in the file does.
        return f"{flow(str(value.path) if folder is None else KEPT)}  # {value.digest}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(flow(inner, folder) for inner in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(k)}: {flow(inner)}" for k, inner in value.items()) + "}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = re.fullmatch("[A-Za-z][A-Za-z0-9._/-]*", value) and value not in WORDS
        return value if plain else quoted(value)
    return str(value)
