"""Milliseconds on a machine, from a table of measured blocks."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import fx

from boundnas.cost.base import BY_TABLE, Cost
from boundnas.cost.counts import MACs
from boundnas.cost.table import (
    ERROR,
    SPEARMAN,
    Axis,
    BlockTimes,
    DimensionOf,
    LatencyTable,
    ModelOf,
)
from boundnas.cost.terms import Terms
from boundnas.engine.machine import fingerprint, installed
from boundnas.errors import CostError
from boundnas.nested import described
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.space.polynomial import Polynomial, amount, tabulated, value_hash
from boundnas.store.files import canonical_json
from boundnas.store.times import LatencyRecord
from boundnas.supernet.extract import outlined
from boundnas.supernet.signature import digest, text_of
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked

FASTEST = 10**5
"""Multiply-accumulates in a nanosecond that no machine does."""

SHORTEST, LONGEST = 10**3, 3600 * 10**9
"""Nanoseconds between which a pass of the largest network lies: a microsecond and an hour."""

_log = logging.getLogger(__name__)


class Latency(Cost):
    """The time that one pass takes in the runtime and on the machine that were measured.

    The sum of the times of the network's blocks, as the table has them or as they lie between two
    that it has, each rounded to whole nanoseconds: ``cost(arch)``, ``cost.reach``, ``cost_range``
    and ``front.best(latency=…)`` count these, so that what one gives the next one takes. A
    configuration, reports and messages have milliseconds.

    Args:
        model: The supernet that the table was measured of; its weights do not matter.
        table: What `boundnas.latency.measure` gave, or the path of its file.
        where: What it is called in messages; by default its path.

    Raises:
        ArgumentError: The model or the table is missing, or something else.
        CostError: The table is damaged, of another model, or not in nanoseconds.
    """

    name, unit, per_unit = "latency", "ms", 10**6
    counts = "nanoseconds"

    @checked
    def __init__(
        self, model: Supernet, table: LatencyTable | Path | str, where: str | None = None
    ) -> None:
        where = where or ("the latency table" if isinstance(table, LatencyTable) else str(table))
        self.table = table if isinstance(table, LatencyTable) else LatencyTable.read(table)
        check_model(self.table.model, model, where)
        super().__init__(model)
        self._check_units(model, where)
        for said in warnings_of(self.table):
            _log.warning("%s: %s", where, said)

    @property
    def file(self) -> bytes:
        """The table as its file holds it."""
        return canonical_json(self.table.written()).encode()

    def _polynomial(self, model: Supernet) -> Polynomial:
        return _polynomial(model.space, self.table)

    def _check_units(self, model: Supernet, where: str) -> None:
        """Refuse times that are no nanoseconds, as no machine takes so long or so short.

        Raises:
            CostError: Names both numbers.
        """
        largest = model.space.largest
        found, macs = self._terms.exact(largest.indices), MACs(model)(largest) * self.table.batch
        if not max(SHORTEST, macs / FASTEST) <= found <= LONGEST:
            raise CostError(
                f"{where}: the largest network takes {self._shown(found)} ms by it, for {macs:,} "
                "multiply-accumulates, which no machine does; times in a table are whole "
                "nanoseconds, 1,000,000 of them a millisecond"
            )


BY_TABLE[Latency.name] = Latency


def predictions(space: SearchSpace, table: LatencyTable) -> Callable[[Architecture], int]:
    """What a table of a model with this space predicts, unchecked: see `Latency`."""
    terms = Terms([_polynomial(space, table)], space)
    return lambda arch: terms.exact(arch.indices)


def _polynomial(space: SearchSpace, table: LatencyTable) -> Polynomial:
    dimensions = {d.name: d for d in space.dimensions}
    terms = [amount(table.offset).terms]
    terms += [_of_block(b, dimensions, table.scale).terms for b in table.blocks]
    return Polynomial(tuple(itertools.chain(*terms)))


def model_of(model: Supernet) -> ModelOf:
    """What a table says of the supernet that it is of: only what times depend on.

    That is what its networks compute, and not how the supernet is written: the multiply-accumulates
    of all networks, and all that those of `_ladder` compute. Neither weights nor names count.
    """
    computed = [_computed(outlined(model, arch)) for arch in _ladder(model.space)]
    (macs,) = MACs(model).polynomial.parts
    text = "\n".join([*computed, str(value_hash(macs))])
    return ModelOf(
        input=described(model.example),
        dimensions=tuple(
            DimensionOf(name=d.name, kind=d.kind, choices=d.choices) for d in model.space.dimensions
        ),
        layers=digest(text),
    )


def _ladder(space: SearchSpace) -> Iterator[Architecture]:
    """Architectures with every option of every dimension, from the smallest to the largest."""
    lasts = [len(dimension) - 1 for dimension in space.dimensions]
    for option in range(max(lasts) + 1):
        yield Architecture(space, tuple(min(option, last) for last in lasts))


def _computed(net: fx.GraphModule) -> str:
    """All that a network computes, however its weights lie in memory."""
    return re.sub(r" of strides \([\d, ]*\)", "", text_of(net.graph, net))


def check_model(held: ModelOf, model: Supernet, where: str) -> None:
    """Refuse a table of another model.

    Raises:
        CostError: Names the first difference.
    """
    now = model_of(model)
    if held == now:
        return
    pairs = itertools.zip_longest(held.dimensions, now.dimensions)
    differing = next(((a, b) for a, b in pairs if a != b), None)
    if held.input != now.input:
        was, found = held.input, now.input
    elif differing is not None:
        was, found = map(_shown, differing)
    else:
        was, found = "other layers or another forward", "the same inputs and space"
    raise CostError(
        f"{where}: is of another model: it has {was}, and this one has {found}; measure this "
        "model, or take the table that was made of it"
    )


def _shown(dimension: DimensionOf | None) -> str:
    if dimension is None:
        return "no further dimension"
    return f"the dimension {dimension.name} of {', '.join(map(str, dimension.choices))}"


def warnings_of(table: LatencyTable) -> Iterator[str]:
    """What should be known before predictions of a table are relied on, on this machine."""
    yield from doubts_of(table)
    yield from _differing(table, "here", {**fingerprint(), table.runtime: installed(table.runtime)})


def doubts_of(table: LatencyTable | None, timed: Iterable[LatencyRecord] = ()) -> Iterator[str]:
    """What should be known wherever predictions of a table are shown, on whatever machine.

    Args:
        table: The table; none where that is not kept with the run.
        timed: What was measured of the networks that it predicts.
    """
    if table is None:
        yield "what predictions are worth is not known, as their table is not kept with this run"
        return
    held = table.validation
    if held is None:
        yield "its predictions were not compared with networks that were timed whole"
    elif not held.is_met:
        yield (
            f"its predictions are worth less than they should be: rank correlation "
            f"{held.spearman:.3f} (at least {SPEARMAN}), mean error {held.error:.1%} (at most "
            f"{ERROR:.0%}); measure it again, for longer, on a quiet machine"
        )
    for cpu, runtime, version in dict.fromkeys((t.machine, t.runtime, t.version) for t in timed):
        yield from _differing(table, "the networks with", {"cpu": cpu, runtime: version})


def _differing(table: LatencyTable, where: str, there: Mapping[str, str | None]) -> Iterator[str]:
    """What of a machine and its runtimes, as far as it is known, is not as the table's."""
    before = {**table.machine, table.runtime: table.runtime_version}
    found = [
        f"{name} {was}, {where} {there[name]}"
        for name, was in before.items()
        if there.get(name) is not None and there[name] != was
    ]
    if found:
        yield f"it was measured with {'; '.join(found)}; its predictions are for that machine"


def _of_block(block: BlockTimes, dimensions: Mapping[str, Dimension], scale: float) -> Polynomial:
    """The time of a block: a term for each combination of options of all axes but one.

    Raises:
        CostError: An axis does not fit its dimension.
    """
    for axis in block.axes:
        _check_axis(block, axis, dimensions)
    single = [axis for axis in block.axes if len(axis.dimensions) == 1]
    summed = block.axes[len(single) :]
    times = scale * np.array(block.times, dtype=np.float64)
    times = times.reshape([axis.points for axis in block.axes])
    for number, axis in enumerate(single):
        times = np.moveaxis(_interpolated(np.moveaxis(times, number, 0), axis.at[0]), 0, number)
    followed = [dimensions[axis.dimensions[0]] for axis in single]
    if not summed:
        return tabulated(followed, _whole(times))
    first, last = times[..., 0], times[..., 1]
    found = tabulated(followed, _whole(first))
    for name, at in zip(summed[0].dimensions, summed[0].at, strict=True):
        slopes = (last - first)[..., None] * np.array(at, dtype=np.float64)
        found += tabulated([*followed, dimensions[name]], _whole(slopes))
    return found


def _interpolated(times: NDArray[np.float64], at: Sequence[float | None]) -> NDArray[np.float64]:
    """Times at every option along the first axis, from those at measured points."""
    places = np.array([0.0 if place is None else place for place in at])
    there = np.array([place is not None for place in at], dtype=np.float64)
    low = np.minimum(places.astype(np.int64), len(times) - 1)
    high = np.minimum(low + 1, len(times) - 1)
    part = (places - low).reshape(-1, *[1] * (times.ndim - 1))
    found = times[low] * (1 - part) + times[high] * part
    return found * there.reshape(part.shape)


def _whole(times: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(times).astype(np.int64)


def _check_axis(block: BlockTimes, axis: Axis, dimensions: Mapping[str, Dimension]) -> None:
    for name, at in zip(axis.dimensions, axis.at, strict=True):
        if name not in dimensions or len(dimensions[name]) != len(at):
            raise CostError(
                f"latency: {block.name} depends on {name} with {len(at)} options by the table, "
                "which is no such dimension of the model; measure the table again"
            )
