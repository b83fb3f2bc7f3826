"""What a run is made of, as names and digests: what several processes, or two runs, must share.

Everything here is a flat mapping from a name that a user understands to a short text. Equal
mappings mean equal runs, bit for bit, on equal processors; a difference has a name.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import dedent
from types import FunctionType, MethodType
from weakref import WeakKeyDictionary

import torch
from pydantic import BaseModel
from torch import Tensor, fx, nn

from boundnas.cost import Cost
from boundnas.data import Data, ImageData, ImageFiles, InMemory, Samples, Source, Subset, batches
from boundnas.data.image_data import SPLITS
from boundnas.data.source import whole
from boundnas.errors import DataError
from boundnas.fit.told import LIBRARIES, digest, globals_of, is_plain, plain_of, told
from boundnas.method.policy import Boundaries
from boundnas.nested import described
from boundnas.randomness import stream
from boundnas.space import SearchSpace
from boundnas.store.environment import environment
from boundnas.supernet.supernet import Supernet
from boundnas.task import Task

Identity = dict[str, str]

_INTERNAL = {*vars(Supernet((1, 1, 1))), "_space", "frozen"}
"""Attributes that every supernet has; what matters of them is told in other ways."""

WITHOUT_EFFECT = ("train.checkpoint_every", "train.gradient_checkpointing", "search.workers")
"""Settings of a training that leave its bytes as they are: a run may go on with others."""

SAMPLED = 64
"""So many images of a split are read in pixels where the images are files."""


def of_settings(settings: BaseModel, prefix: str, without: tuple[str, ...] = ()) -> Identity:
    """Every setting by its dotted name.

    Args:
        settings: A section of a configuration, or all of it.
        prefix: What the names begin with.
        without: Dotted names that are left out.
    """

    def flat(value: object, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from flat(inner, f"{name}.{key}" if name else key)
        elif name == "cost" and isinstance(value, list):
            for number, inner in enumerate(value):
                yield from flat(inner, name if len(value) == 1 else f"{name}[{number}]")
        elif name not in without:
            yield name, json.dumps(value)

    return dict(flat(settings.model_dump(mode="json"), prefix))


def of_run(
    model: Supernet,
    data: Samples,
    pairs: Sequence[tuple[Cost | None, tuple[float, float]]],
    seed: int,
    folder: Path | None,
) -> Identity:
    """All that a run is made of but its settings.

    Args:
        model: The supernet, with its weights.
        data: The images.
        pairs: The costs that are penalized, each with its range; none is the model's MACs.
        seed: The run's seed.
        folder: Where the run is kept, if it is.
    """
    return {
        "seed": str(seed),
        **of_machine(next(model.parameters(), torch.empty(0)).device),
        **of_model(model),
        **of_costs(pairs, model.space),
        **of_data(data),
        **of_folder(folder),
    }


def of_data(data: Samples) -> Identity:
    """Facts of a data set, and digests of the labels and images of its three splits."""
    splits = (of_split(data, split) for split in SPLITS)
    return {"data.name": data.name, **data.facts(), **dict(chain(*map(dict.items, splits)))}


def of_split(data: Samples, split: str) -> Identity:
    """Digests of the labels and images of one split.

    Images in memory are read whole; of image files, names and sizes of all are taken and the
    pixels of 64 of each split; of other sources the same number of images. Read once, and again
    when tensors in memory were written since.
    """
    if isinstance(data, Data):
        return data.identity(split)
    source: Source = getattr(data, split)
    known = _of_splits.setdefault(data, {})
    written = _written(source)
    if split not in known or known[split][0] != written:
        known[split] = written, of_source(source)
    return {f"{name} of data.{split}": value for name, value in known[split][1].items()}


_of_splits: WeakKeyDictionary[ImageData, dict[str, tuple[tuple[int, ...], Identity]]]
_of_splits = WeakKeyDictionary()


def _written(source: Source) -> tuple[int, ...]:
    """How often the tensors of a source were written, as far as torch counts it."""
    tensors = [t for t in getattr(source, "__dict__", {}).values() if isinstance(t, Tensor)]
    inner = _written(source.source) if isinstance(source, Subset) else ()
    return (*(value._version for value in tensors), *inner)


def of_source(source: Source) -> Identity:
    """Number, labels and images of a source; see `of_data`."""
    number, kind = len(source), type(source).__name__
    chosen, files = whole(source, torch.arange(number))
    if isinstance(files, InMemory):
        labels = digest(files.labels.index_select(0, chosen))
        pixels = digest(*(digest(images) for images, _ in batches(files, chosen, 1024)))
        return {"number": str(number), "labels": labels, "images": pixels}
    spaced = torch.linspace(0, number - 1, min(number, SAMPLED)).round().long()
    images, labels_of_some = source.take(spaced)
    found = {"number": str(number), "images": digest(images)}
    if not isinstance(files, ImageFiles):
        return {**found, "labels": digest(labels_of_some), "kind": kind}
    paths = [files.paths[i] for i in chosen.tolist()]
    # The name of the class and of the file: where the data lie may differ from rank to rank.
    names = "\n".join(f"{'/'.join(path.parts[-2:])} {_size(path)}" for path in paths)
    return {
        **found,
        "labels": digest(files.labels.index_select(0, chosen)),
        "files": digest(names),
        "decoding": repr(files.decoding),
    }


def _size(path: Path) -> int:
    """Bytes of an image file.

    Raises:
        DataError: It is gone, or cannot be reached.
    """
    try:
        return path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); put the image back") from error


def of_model(model: Supernet) -> Identity:
    """The structure of a model, and every weight and buffer."""
    return {**of_structure(model), **of_weights(model)}


def of_structure(model: Supernet) -> Identity:
    """The space, the modules with their attributes and code, what is trained, all shapes."""
    found = {"input": described(model.example)}
    for d in model.space.dimensions:
        found[f"dimension {d.name}"] = f"{d.kind} {json.dumps(d.choices)}"
    for name, module in model.named_modules():
        held = {key: told(value) for key, value in _attributes(module)}
        frozen = name in model.frozen if not model.training else not module.training
        held["training"] = not frozen  # once it trains, whatever mode it is in now
        if isinstance(module, fx.GraphModule):
            held["graph"] = digest(module.code)
        found[f"module {name or 'itself'}"] = f"{type(module).__name__} {held}"
    for name, value in _tensors(model).items():
        found[f"shape of {name}"] = (
            f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
            + ("" if value.requires_grad else " not trained")
        )
    return {**found, **of_code([type(m) for m in model.modules()])}


def _attributes(module: nn.Module) -> Iterator[tuple[str, object]]:
    """What a module is told by: of this package and of torch plain values and functions do."""
    library = type(module).__module__.partition(".")[0] in LIBRARIES
    for name, value in sorted(vars(module).items()):
        own = not library and name not in _INTERNAL
        if own or (name[0] != "_" and (is_plain(value) or callable(value))):
            yield name, value


def of_weights(model: nn.Module) -> Identity:
    """The values of every parameter and buffer."""
    return {f"values of {name}": digest(value) for name, value in _tensors(model).items()}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(chain(model.named_parameters(), model.named_buffers()))


def of_policies(boundaries: Boundaries) -> Identity:
    """The two policies."""
    return {f"{name}_policy": digest(*policy.parameters()) for name, policy in boundaries.items()}


def of_costs(
    pairs: Sequence[tuple[Cost | None, tuple[float, float]]], space: SearchSpace
) -> Identity:
    """All costs with their ranges; those after the first with the number of each."""
    found: Identity = {}
    for number, (cost, cost_range) in enumerate(pairs, 1):
        which = f" {number}" if number > 1 else ""
        found |= {f"{k}{which}": v for k, v in of_cost(cost, cost_range, space).items()}
    return found


def of_cost(cost: Cost | None, cost_range: tuple[float, float], space: SearchSpace) -> Identity:
    """The cost, its range, and what it is at the ends and at ten networks between them."""
    found = {"cost_range": str(tuple(map(float, cost_range)))}
    if cost is None:
        return {"cost": "of the model", **found}
    generator = stream(0, "identity")
    some = [space.smallest, space.largest]
    some += [space.sample(generator, space.whole) for _ in range(10)]
    return {
        "cost": f"{type(cost).__name__} {cost.name}",
        **found,
        **of_code([type(cost)]),
        "costs of twelve networks": ", ".join(str(cost(arch)) for arch in some),
        "terms of the cost": digest(*map(torch.from_numpy, cost.terms)),
    }


def of_task(task: Task) -> Identity:
    """The task with its plain attributes, and the code of what in it is a user's."""
    held = sorted(vars(task).items())
    plain = {k: v for k, v in held if is_plain(v)}
    found = {"task": f"{type(task).__name__} {plain}", **of_code([type(task)])}
    for name, part in held:
        if isinstance(part, FunctionType | MethodType | partial):
            found[f"task.{name.strip('_')}"] = str(told(part))
        elif callable(part) or hasattr(part, "__dict__"):  # a metric's tensors follow its use
            own = getattr(part, "__name__", "")
            found[f"task.{name.strip('_')}"] = f"{type(part).__name__} {own} {plain_of(part)}"
            found |= of_code([type(part)])
    return found


def of_machine(device: torch.device) -> Identity:
    """Versions, threads and what else of the surroundings decides the last bits.

    The processor's and the system's names are not among them: equal capabilities give equal bits.
    """
    named = environment()
    return {
        **{k: str(v) for k, v in named.items() if k not in ("cpu", "platform")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "default dtype": str(torch.get_default_dtype()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "oneDNN": str(torch.backends.mkldnn.enabled),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
    }


def of_folder(path: Path | None) -> Identity:
    """Which folder it is, wherever it is mounted; none for a run that is not kept."""
    return {"folder": "none" if path is None else f"number {path.stat().st_ino} on its disk"}


def of_code(kinds: Iterable[type]) -> Identity:
    """Statements of classes that are neither torch's nor this package's, whose versions are known,
    and the constants and functions of their modules that these use.

    Comments and the way that the text is laid out do not count.
    """
    found = {}
    for kind in dict.fromkeys(chain(*(kind.__mro__ for kind in kinds))):
        if kind.__module__.partition(".")[0] in LIBRARIES:
            continue
        methods = [each for each in vars(kind).values() if isinstance(each, FunctionType)]
        with suppress(OSError, TypeError, SyntaxError):  # typed in, so that there is no file
            text = ast.dump(ast.parse(dedent(inspect.getsource(kind))))
            used = [globals_of(each) for each in methods]
            found[f"code of {kind.__qualname__}"] = digest(text, str(used))
    return found


def difference(held: object, now: Identity) -> str | None:
    """How what was written down differs from what is there now; none where it does not.

    Args:
        held: What was read, whatever it is.
        now: What is there.

    Returns:
        The first difference with both values, and how many more there are, by their names.

    Examples:
        >>> difference({"seed": "0", "cost": "macs"}, {"seed": "1", "cost": "latency"})
        'seed = 0, this one has 1; 1 more differ: cost'
    """
    if not isinstance(held, dict):
        return "nothing that says what it is, as a version before 0.2 wrote it"
    names = [n for n in {**now, **held} if held.get(n) != now.get(n)]
    if not names:
        return None
    first, more = names[0], names[1:]
    was, value = (str(each.get(first, "missing"))[:200] for each in (held, now))
    rest = f"; {len(more)} more differ: {', '.join(more[:5])}" + (", ..." if more[5:] else "")
    return f"{first} = {was}, this one has {value}" + (rest if more else "")
