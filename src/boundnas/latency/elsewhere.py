"""A plan of what another device has to time, and the table of the times that come back.

A plan is a folder: the blocks and some whole networks as ONNX files in an archive, a list of them,
and a program of one file that needs numpy and onnxruntime alone.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError
from torch import fx

from boundnas.cost import LatencyTable, MACs
from boundnas.cost.latency import check_model, model_of
from boundnas.cost.table import ModelOf
from boundnas.engine.progress import Progress
from boundnas.errors import CostError
from boundnas.extras import require
from boundnas.latency.bench import Noise, reference
from boundnas.latency.copies import copies, of_one
from boundnas.latency.fit import spread_out
from boundnas.latency.grid import Plan
from boundnas.latency.measuring import BLOCK_ROUNDS, NETWORK_ROUNDS, NOISE, TOGETHER, validated
from boundnas.latency.onnx_file import onnx_of
from boundnas.latency.runner import MODELS, PLAN, REFERENCE, TIMES, VERSION
from boundnas.latency.timing import Times
from boundnas.latency.whole import flattened
from boundnas.store.base import Record, first_fault
from boundnas.store.files import cannot_write, canonical_json, read_bytes
from boundnas.store.held import folder_at
from boundnas.store.temporary import clean, temporary
from boundnas.supernet.extract import outlined
from boundnas.supernet.signature import digest
from boundnas.supernet.supernet import Supernet

PROGRAM = "measure.py"
"""The program in the folder of a plan."""

MOST_BLOCKS = 1000
"""A finer grid is planned for as long as there are no more blocks in all."""

_PARTS = ("engine/machine.py", "latency/timing.py", "latency/runner.py")
"""Modules that the program is made of."""

_AGAIN = "write the plan again, and measure that"


class PlannedBlock(Record):
    """A block of a plan.

    Args:
        signature: A digest of what it computes.
        many: The file that holds it ``number`` times.
        one: The file that holds it once.
        number: See there.
    """

    signature: str
    many: str
    one: str
    number: Annotated[int, Field(ge=2)]


class PlannedNetwork(Record):
    """A whole network of a plan: by some the table is fitted, by the others checked."""

    architecture: dict[str, bool | int | float | str]
    file: str


class Group(Record):
    """Files that are timed in turn, so often each; those of level 0 are timed in any case."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    rounds: int
    level: int


class PlanRecord(Record):
    """``plan.json``.

    Args:
        version: Of plan, program and times.
        plan: A digest of all else.
        models: SHA-256 of the archive.
        model: The supernet.
        batch: Samples in a pass.
        blocks: What is timed of its blocks.
        networks: Whole networks.
        groups: In which order.
    """

    version: Literal[1] = 1
    plan: str = ""
    models: str
    model: ModelOf
    batch: int
    blocks: tuple[PlannedBlock, ...]
    networks: tuple[PlannedNetwork, ...]
    groups: tuple[Group, ...]

    @property
    def sum(self) -> str:
        """Of all but this sum itself."""
        return digest(canonical_json(self.model_dump(mode="json", exclude={"plan"})))


Nanoseconds = Annotated[int, Field(gt=0, le=2**53)]
Row = tuple[Nanoseconds, Nanoseconds, Nanoseconds]


class TimesFile(Record):
    """``times.json``: what the program measured; of each time median and quartiles.

    Args:
        times: Of each file.
        references: Of a network that was timed with every group.
    """

    version: Literal[1] = 1
    plan: str
    runtime: str
    runtime_version: str
    threads: Annotated[int, Field(ge=1)]
    machine: dict[str, str]
    times: dict[str, Row]
    references: Annotated[tuple[Row, ...], Field(min_length=1)]


def program() -> str:
    """The program that times a plan: the modules that it is made of, in one file."""
    begins = "from __future__ import annotations\n"
    texts = [files("boundnas").joinpath(part).read_text(encoding="utf-8") for part in _PARTS]
    docstring = texts[-1].partition(begins)[0]
    lines = "".join(text.partition(begins)[2] for text in texts).splitlines(keepends=True)
    return "".join([docstring, begins, *(x for x in lines if not x.startswith("from boundnas."))])


def write_plan(model: Supernet, folder: Path, batch: int = 1, seed: int = 0) -> PlanRecord:
    """Write what another device has to time for a table of a supernet's latency.

    Equal models give equal bytes.

    Args:
        model: The supernet; its weights do not matter and are not in the files.
        folder: Will hold ``plan.json``, ``models.zip`` and ``measure.py``; nothing is there yet.
        batch: Samples in a pass.
        seed: Draws the whole networks.

    Returns:
        What is in ``plan.json``.

    Raises:
        CostError: Something is there already, or the networks cannot be written or cut.
        ExtraError: A library for ONNX files is missing.
        RunError: The folder cannot be written.
    """
    require("a plan for another device", "onnx")
    if os.path.lexists(folder):
        raise CostError(f"{folder}: is there already; name a new folder, or move this one away")
    try:
        with folder_at(folder.parent, None, make=True) as parent:
            clean(parent)
            with temporary(parent, is_folder=True) as (partial, inside):
                plan = _written(model, folder.parent / partial, batch, seed)
                os.fsync(inside)
                os.rename(partial, folder.name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
    except OSError as error:
        raise cannot_write(folder, 0, error) from error
    return plan


def _written(model: Supernet, place: Path, batch: int, seed: int) -> PlanRecord:
    """Write the files of a plan into a folder."""
    with zipfile.ZipFile(place / MODELS, "w") as archive:
        _put(archive, REFERENCE, onnx_of(*reference()))
        networks = tuple(_networks(model, archive, batch, seed))
        levels = list(_blocks(Plan(model, batch), archive))
    with (place / MODELS).open("rb") as file:
        models = hashlib.file_digest(file, "sha256").hexdigest()
    plan = PlanRecord(
        models=models,
        model=model_of(model),
        batch=batch,
        blocks=tuple(itertools.chain(*levels)),
        networks=networks,
        groups=tuple(_groups(networks, levels)),
    )
    plan = plan.model_copy(update={"plan": plan.sum})
    (place / PLAN).write_text(canonical_json(plan.model_dump(mode="json")))
    (place / PROGRAM).write_text(program())
    return plan


def _networks(
    model: Supernet, archive: zipfile.ZipFile, batch: int, seed: int
) -> Iterator[PlannedNetwork]:
    """Write the files of whole networks, which are chosen by what they multiply."""
    archs = spread_out(model.space, MACs(model), seed)
    with Progress(len(archs), "plan, whole networks", unit="network") as progress:
        for i, arch in enumerate(archs):
            name = f"network{i:03}.onnx"
            _put(archive, name, onnx_of(*flattened(constant(outlined(model, arch)), batch)))
            yield PlannedNetwork(architecture=dict(arch.values), file=name)
            progress.advance()


def _blocks(grid: Plan, archive: zipfile.ZipFile) -> Iterator[list[PlannedBlock]]:
    """Write the files of blocks, level by level."""
    number = itertools.count()
    for level, signatures in enumerate(_levels(grid)):
        planned = []
        with Progress(len(signatures), f"plan, grid {level + 1}", unit="block") as progress:
            for block in grid.blocks(signatures):
                pair = copies(replace(block, root=constant(block.net)))
                name = f"block{next(number):04}"
                many, one = f"{name}-many.onnx", f"{name}-one.onnx"
                _put(archive, many, onnx_of(pair.many, pair.inputs))
                _put(archive, one, onnx_of(pair.one, pair.inputs))
                signature = digest(block.signature)
                planned.append(
                    PlannedBlock(signature=signature, many=many, one=one, number=pair.number)
                )
                progress.advance()
        yield planned


def _levels(grid: Plan) -> Iterator[tuple[str, ...]]:
    """What each level adds, as long as it is not too much."""
    total = 0
    for level in range(grid.levels):
        signatures = grid.signatures(level)
        total += len(signatures)
        if level and total > MOST_BLOCKS:
            return
        yield signatures


def constant(net: fx.GraphModule) -> fx.GraphModule:
    """A copy with weights that are all alike within a tensor, which take no room in an archive.

    Runtimes take as long with them: what comes out is finite, and about as large as what goes in.
    """
    net = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
        if parameter.is_floating_point():
            parameter.fill_(len(parameter) / parameter.numel() if parameter.dim() > 1 else 0.75)
    return net


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name)  # of a fixed date, so that equal networks give equal archives
    archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def _groups(
    networks: Sequence[PlannedNetwork], levels: Sequence[Sequence[PlannedBlock]]
) -> Iterator[Group]:
    """Whole networks spread among the blocks of the coarsest grid, then the finer ones.

    So a machine that becomes slower meanwhile is so for both.
    """
    parts = -(-len(networks) // TOGETHER)
    whole = [
        Group(files=tuple(n.file for n in networks[i::parts]), rounds=NETWORK_ROUNDS, level=0)
        for i in range(parts)
    ]
    first, *finer = (list(_in_turn(blocks, level)) for level, blocks in enumerate(levels))
    placed = [(i / len(each), group) for each in (whole, first) for i, group in enumerate(each)]
    yield from (group for _, group in sorted(placed, key=itemgetter(0)))
    yield from itertools.chain(*finer)


def _in_turn(blocks: Sequence[PlannedBlock], level: int) -> Iterator[Group]:
    for i in range(0, len(blocks), TOGETHER):
        names = [name for b in blocks[i : i + TOGETHER] for name in (b.many, b.one)]
        yield Group(files=tuple(names), rounds=BLOCK_ROUNDS, level=level)


def collect(model: Supernet, folder: Path, noise: float = NOISE) -> LatencyTable:
    """The table of the times that another device measured by a plan.

    Args:
        model: The supernet that the plan was written for.
        folder: The plan with ``times.json``.
        noise: How far the times of one and the same network may lie apart, as a part of them.

    Raises:
        CostError: The plan is of another model, times are missing, damaged or of another plan, or
            the machine was too noisy.
    """
    plan, found = _read(folder / PLAN, PlanRecord), _read(folder / TIMES, TimesFile)
    if plan.plan != plan.sum:
        raise CostError(f"{folder / PLAN}: is not what was written, by its sum; {_AGAIN}")
    check_model(plan.model, model, str(folder / PLAN))
    if found.plan != plan.plan:
        raise CostError(
            f"{folder / TIMES}: holds the times of another plan; take the file from the folder "
            "that this plan was measured in"
        )
    needed = [name for group in plan.groups if group.level == 0 for name in group.files]
    missing = [name for name in needed if name not in found.times]
    if missing:
        raise CostError(
            f"{folder / TIMES}: lacks {len(missing)} of {len(needed)} times that are needed, first "
            f"that of {missing[0]}; run {PROGRAM} there again, which goes on from what it has"
        )
    apart = Noise.of([Times(*row) for row in found.references])
    if max(apart.spread, apart.drift) > noise:
        raise CostError(
            f"{folder / TIMES}: that machine was too noisy: one and the same network took "
            f"{apart.spread:.0%} longer or shorter, over time {apart.drift:.0%}, and {noise:.0%} "
            "is allowed; move the file away, stop other programs there and measure again"
        )
    return _table(model, plan, found, max(apart.spread, apart.drift))


def _table(model: Supernet, plan: PlanRecord, found: TimesFile, noise: float) -> LatencyTable:
    """The table of times that belong to a plan of the model."""
    medians = {name: row[0] for name, row in found.times.items()}
    by_digest = {
        b.signature: of_one(medians[b.many], medians[b.one], b.number)
        for b in plan.blocks
        if b.many in medians
    }
    table = LatencyTable(
        model=plan.model,
        runtime=found.runtime,
        runtime_version=found.runtime_version,
        threads=found.threads,
        batch=plan.batch,
        machine=found.machine,
        blocks=Plan(model, plan.batch).times(by_digest),
    )
    times = {
        model.space.architecture(n.architecture): Times(*found.times[n.file]) for n in plan.networks
    }
    return validated(model, table, times, noise)


R = TypeVar("R", bound=Record)


def _read(path: Path, kind: type[R]) -> R:
    """A file of a plan.

    Raises:
        CostError: It is missing or damaged, or of another version.
    """
    data = read_bytes(path, error=CostError)
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise CostError(f"{path}: is no file of a plan, or damaged; copy it again") from error
    if version != VERSION:
        raise CostError(
            f"{path}: is of version {version}, and this boundnas reads version {VERSION}; {_AGAIN}"
        )
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise CostError(f"{path}: is damaged: {first_fault(error)}; copy it again") from error
