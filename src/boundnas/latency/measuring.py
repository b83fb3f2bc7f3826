"""A latency table of this machine: blocks from coarse to fine, and whole networks beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import count, islice
from math import ceil
from pathlib import Path
from typing import TypeVar

from boundnas.cost.counts import MACs
from boundnas.cost.latency import model_of, predictions
from boundnas.cost.table import Held, LatencyTable, Validation
from boundnas.engine.machine import fingerprint
from boundnas.engine.progress import Progress
from boundnas.errors import CostError
from boundnas.latency.bench import Bench
from boundnas.latency.blocks import Block
from boundnas.latency.copies import copies, of_one
from boundnas.latency.fit import CHECKED, FITTED, fitted, parted, spread_out
from boundnas.latency.grid import Plan
from boundnas.latency.runtimes import Runtime, runtime_of
from boundnas.latency.timing import Call, Times
from boundnas.latency.whole import loaded
from boundnas.space import Architecture
from boundnas.store.files import write_json
from boundnas.supernet.extract import outlined
from boundnas.supernet.signature import digest
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked

NOISE = 0.1
"""The largest noise that is accepted: quartiles of one and the same network, and its drift."""

TOGETHER = 8
"""So many blocks, or networks, are timed in turn."""

BLOCK_ROUNDS, NETWORK_ROUNDS = 15, 30
"""Times that are taken of each."""

PASSES = 3
"""All but the first are for what was timed when the machine was slow, as it turned out later."""

T = TypeVar("T")


@checked
def measure(
    model: Supernet,
    path: Path | str | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    minutes: float = 15,
    seed: int = 0,
    noise: float = NOISE,
) -> LatencyTable:
    """Measure how long the networks of a supernet take on this machine.

    Blocks of extracted networks are timed on a grid that becomes finer as long as there is time,
    then about 70 whole networks: 20 of them give offset and scale, ``offset + scale * sum of
    blocks``, and the others show what the predictions are worth.

    Args:
        model: The supernet; its weights do not matter.
        path: Where the table is written, as ``latency.json``, where nothing is yet. What is
            measured on the way stands in a file beside it, so that the same call goes on after it
            was stopped.
        runtime: Where the networks run: ``"onnxruntime"``, ``"torch"``, ``"compile"``, or one of
            your own; see `boundnas.latency.register`.
        threads: So many threads compute.
        batch: Samples in a pass.
        minutes: The time that it may take, about.
        seed: Of the networks that are timed whole.
        noise: How far the times of one and the same network may lie apart, as a part of them.

    Returns:
        The table, for `boundnas.cost.Latency`.

    Raises:
        CostError: Something is at ``path``, the time is not enough for the coarsest grid, the
            machine is too noisy, or the runtime cannot run something.
        RunError: A file cannot be written, or is damaged.
        ExtraError: A library is missing.
    """
    for name, value, least in (("minutes", minutes, 0), ("batch", batch, 0), ("noise", noise, 0)):
        if not value > least:
            raise CostError(f"measure: {name} is above {least}, found {value}")
    used, plan = runtime_of(runtime, threads), Plan(model, batch)
    place = None if path is None else Path(path)
    if place is not None and os.path.lexists(place):
        raise CostError(
            f"{place}: is there already; name another file (--out of the command), or move it away"
        )
    journal = None if place is None else place.with_name(f"{place.name}.journal")
    settings = _settings(model, used, batch, seed)
    with used.in_use(), Bench(used, noise, journal, settings) as bench:
        table = _Measurement(model, plan, used, bench, minutes, seed).table()
    if place is not None and journal is not None:
        write_json(place, table.written())
        journal.unlink()
    return table


def _settings(model: Supernet, runtime: Runtime, batch: int, seed: int) -> dict[str, str]:
    """What the times depend on."""
    return {
        "model": digest(model_of(model).model_dump_json()),
        "runtime": f"{runtime.name} {runtime.version}",
        "threads": str(runtime.threads),
        "batch": str(batch),
        "seed": str(seed),
        "version of boundnas": version("boundnas"),
        **fingerprint(),
    }


class _Measurement:
    """The way to a table; see `measure`."""

    def __init__(
        self,
        model: Supernet,
        plan: Plan,
        runtime: Runtime,
        bench: Bench,
        minutes: float,
        seed: int,
    ) -> None:
        self._model, self._plan, self._runtime = model, plan, runtime
        self._bench, self._seed = bench, seed
        self._end = round(minutes * 60e9)

    def table(self) -> LatencyTable:
        """All of it."""
        space = self._model.space
        self._networks([space.smallest, space.largest])
        # As long as these two took, each of the others will.
        number = min(FITTED + CHECKED, space.size)
        reserved = self._bench.batches[0].elapsed * number // 2
        archs: Sequence[Architecture] = ()
        for _ in range(PASSES):
            for level in count():
                if level >= self._plan.levels or not self._level(level, self._end - reserved):
                    break
            if not self._untimed(0):
                archs = spread_out(space, predictions(space, self._of_blocks()), self._seed)
                self._networks(archs)
        if self._untimed(0) or any(_name(arch) not in self._bench.times for arch in archs):
            raise CostError(
                "this machine becomes faster again and again, so that no times belong together; "
                "fix the processor's frequency, stop other programs, and call again"
            )
        return self._validated(self._of_blocks(), archs)

    def _untimed(self, level: int) -> list[str]:
        """Signatures of a level without times that hold: those of a slow machine do not."""
        known = self._known()
        return [s for s in self._plan.signatures(level) if digest(s) not in known]

    def _level(self, level: int, end: int) -> bool:
        """Time blocks of a level as long as there is time; gives whether it is whole."""
        if level and self._bench.elapsed >= end:
            return False  # it takes a while to find out what a level would measure
        wanted, left = self._plan.signatures(level), self._untimed(level)
        if not left:
            return True
        label = f"latency, grid {level + 1} of {self._plan.levels}"
        with Progress(len(wanted), label, unit="block", done=len(wanted) - len(left)) as progress:
            for blocks in _groups(self._plan.blocks(left)):
                if self._bench.elapsed >= (end if level else self._end):
                    if not level:
                        self._refuse_haste(len(left), progress)
                    return False
                self._blocks(blocks)
                progress.advance(len(blocks))
        return True

    def _refuse_haste(self, left: int, progress: Progress) -> None:
        needed = self._bench.elapsed / 60e9 * progress.total / max(progress.done, 1)
        raise CostError(
            f"minutes={self._end / 60e9:g} is not enough: {progress.done} of {progress.total} "
            f"blocks of the coarsest grid were timed; give at least minutes={ceil(2 * needed)}; "
            "what was measured is kept, if a path was given, and the same call goes on from there"
        )

    def _blocks(self, blocks: Sequence[Block]) -> None:
        """Time blocks in turn."""
        names, calls = list[str](), list[Call]()
        for block in blocks:
            try:
                pair = copies(block, taps=not self._runtime.looks_ahead)
                for number, net in ((pair.number, pair.many), (1, pair.one)):
                    names.append(f"{digest(block.signature)} x {number}")
                    calls.append(self._runtime.load(net, pair.inputs))
            except CostError as error:
                raise CostError(f"{block.name}: {error}") from error
        self._bench.run(names, calls, BLOCK_ROUNDS)

    def _known(self) -> dict[str, int]:
        """Nanoseconds of every block that was timed, by the digest of its signature."""
        found: dict[str, dict[int, int]] = {}
        for name, times in self._bench.times.items():
            block, _, number = name.partition(" x ")
            if number:
                found.setdefault(block, {})[int(number)] = times.median
        return {block: of_one(t[max(t)], t[1], max(t)) for block, t in found.items()}

    def _of_blocks(self) -> LatencyTable:
        """The table without what whole networks show."""
        return LatencyTable(
            model=model_of(self._model),
            runtime=self._runtime.name,
            runtime_version=self._runtime.version,
            threads=self._runtime.threads,
            batch=self._plan.batch,
            machine=fingerprint(),
            blocks=self._plan.times(self._known()),
        )

    def _validated(self, table: LatencyTable, archs: Sequence[Architecture]) -> LatencyTable:
        """The table with offset, scale and what its predictions are worth.

        Args:
            table: Without them.
            archs: Networks that were timed whole, in the order of their predictions.
        """
        times = {arch: self._bench.times[_name(arch)] for arch in archs}
        noise = self._bench.noise
        return validated(self._model, table, times, max(noise.spread, noise.drift))

    def _networks(self, archs: Sequence[Architecture]) -> None:
        """Time those whole networks that were not timed before, small and large ones in turn."""
        parts = ceil(len(archs) / TOGETHER)
        if all(_name(arch) in self._bench.times for arch in archs):
            return
        with Progress(len(archs), "latency, whole networks", unit="network") as progress:
            for part in (archs[i::parts] for i in range(parts)):
                left = [arch for arch in part if _name(arch) not in self._bench.times]
                if left:
                    nets = [outlined(self._model, arch) for arch in left]
                    calls = [loaded(net, self._runtime, self._plan.batch) for net in nets]
                    self._bench.run([_name(arch) for arch in left], calls, NETWORK_ROUNDS)
                progress.advance(len(part))


def validated(
    model: Supernet, table: LatencyTable, times: Mapping[Architecture, Times], noise: float
) -> LatencyTable:
    """A table of blocks alone with offset, scale and what its predictions are worth.

    Args:
        model: The supernet.
        table: The table.
        times: Those of whole networks.
        noise: See `LatencyTable`.

    Raises:
        CostError: No block takes any time.
    """
    macs, sums = MACs(model), predictions(model.space, table)
    if not any(map(sums, times)):
        raise CostError(
            "no block of these networks takes so long that it can be told from the call of a "
            f"network: {len(table.blocks)} blocks took 0 nanoseconds; measure more samples a pass, "
            "as in batch=32, or larger networks"
        )
    archs = sorted(times, key=sums)
    fit, others = parted(len(archs))
    (offset, scale), (beside, each) = (
        fitted([amount(archs[i]) for i in fit], [times[archs[i]].median for i in fit])
        for amount in (sums, macs)
    )
    table = table.model_copy(update={"offset": offset, "scale": scale, "noise": noise})
    predict = predictions(model.space, table)
    held = tuple(
        Held(
            predicted=predict(arch),
            measured=times[arch].median,
            macs=macs(arch),
            by_macs=round(beside + each * macs(arch)),
            quartiles=(times[arch].lower, times[arch].upper),
        )
        for arch in (archs[i] for i in others)
    )
    found = Validation(networks=held) if len(held) > 1 else None  # of three networks or less
    return table.model_copy(update={"validation": found})


def _groups(items: Iterable[T]) -> Iterator[list[T]]:
    """So many at a time as are timed together."""
    each = iter(items)
    while group := list(islice(each, TOGETHER)):
        yield group


def _name(arch: Architecture) -> str:
    return " ".join(map(str, arch.indices))
