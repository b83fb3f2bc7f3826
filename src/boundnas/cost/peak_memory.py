"""The most memory that activations take while a network computes."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from functools import partial

from boundnas.cost.base import COSTS, Cost
from boundnas.cost.plains import Plains
from boundnas.cost.plan import Buffer, Plan, rounded
from boundnas.errors import CostError
from boundnas.randomness import stream
from boundnas.space import Architecture, Setting, Value
from boundnas.space.polynomial import Largest, Polynomial, amount
from boundnas.supernet.paths import paths
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.uses import Uses

TRIED = 8
"""Random architectures that are tried beside those of `boundnas.supernet.paths`; as many others
are counted to see that the cost is theirs."""

Channels = tuple[Setting, int]
"""Those of a setting, and how many are held together."""


class PeakMemory(Cost):
    """Bytes of activations at the widest moment of a pass, by `boundnas.cost.plan`.

    It is exact for that plan. The gradient of a relaxed architecture is that of the moment that
    decides; of equal ones the first.

    Args:
        model: The supernet.
        batch: Number of samples that are computed together.
        block: Channels of a map that the runtime holds together: 1 where it works in the layout of
            the graph. ONNX Runtime takes 16 on processors with AVX-512, 8 on others of x86.

    Raises:
        CostError: What is held at a moment depends on too much, or in ways that were not found.
    """

    name, unit, per_unit = "peak_memory", "MB", 10**6
    counts = "bytes"
    polynomial: Largest

    def __init__(self, model: Supernet, batch: int = 1, block: int = 1) -> None:
        for what, number in (("batch", batch), ("block", block)):
            if type(number) is not int or number < 1:
                raise CostError(
                    f"peak_memory: {what} is a whole number of at least 1, found {number!r}"
                )
        self.batch, self.block = batch, block
        super().__init__(model)

    def _polynomial(self, model: Supernet) -> Largest:
        plans, found, space = _Plans(model, self.batch, self.block), paths(model), model.space
        generator = stream(0, "peak memory")
        probes = [*found.probes, *(space.sample(generator) for _ in range(TRIED))]
        names = dict.fromkeys(name for arch in probes for name in plans.numbers(arch))
        presence = {name: found.presence.get(plans.places[name], ()) for name in names}
        uses = Uses(space, presence, lambda name, arch: plans.numbers(arch).get(name, 0))
        moments = []
        for name, use in uses.find(names, probes).items():
            total = Polynomial(())
            for number, condition in use.cases():
                total += plans.held(number).given(condition)
            for condition in reversed(presence[name]):
                total = total.given(condition)
            moments.append(total)
        largest = Largest(tuple(dict.fromkeys(moments)))
        for arch in (*probes, *(space.sample(generator) for _ in range(TRIED))):
            if largest.value(arch) != plans.peak(arch):
                raise CostError(
                    f"peak_memory: {plans.peak(arch):,} bytes are counted as "
                    f"{largest.value(arch):,} in {arch}: what is held depends on the architecture "
                    "in a way that was not found; take another cost, or elastic.Stage for depth"
                )
        return largest


COSTS[PeakMemory.name] = PeakMemory


class _Plans:
    """The plans of a model's architectures, each made once.

    Args:
        model: The supernet.
        batch: Number of samples.
        block: Channels that are held together.
    """

    def __init__(self, model: Supernet, batch: int, block: int) -> None:
        self.model, self.batch, self.block = model, batch, block
        self.places: dict[str, str] = {}
        """The module of each moment."""
        self._plains = Plains(model)
        self._numbers: dict[Architecture, dict[str, int]] = {}
        self._peaks: dict[Architecture, int] = {}
        self._held: list[dict[Channels, Fraction]] = []
        self._known: dict[frozenset[tuple[Channels, Fraction]], int] = {}

    def numbers(self, arch: Architecture) -> dict[str, int]:
        """For every moment of a pass, by its name, a number of what is held then; see `held`."""
        if arch not in self._numbers:
            moments = Plan(self.model, arch, self.batch, self.block, self._plains).moments()
            self._peaks[arch] = max(sum(b.held(arch) for b in held) for held in moments.values())
            self._numbers[arch] = {self._name(m): self._number(h) for m, h in moments.items()}
        return self._numbers[arch]

    def _name(self, moment: tuple[str, int]) -> str:
        place, count = moment
        name = f"{place or 'forward'}, step {count}"
        self.places[name] = place
        return name

    def peak(self, arch: Architecture) -> int:
        """Bytes at the widest moment."""
        self.numbers(arch)
        return self._peaks[arch]

    def held(self, number: int) -> Polynomial:
        """Bytes of what has this number."""
        total = Polynomial(())
        for (setting, block), each in self._held[number - 1].items():
            total += amount(setting, partial(_bytes, each, block))
        return total

    def _number(self, held: list[Buffer]) -> int:
        summed: dict[Channels, Fraction] = defaultdict(Fraction)
        for buffer in held:
            for setting, each in buffer.parts:
                if isinstance(setting, int):
                    summed[1, 1] += rounded(setting, buffer.block) * each
                else:
                    summed[setting, buffer.block] += each
        number = self._known.setdefault(frozenset(summed.items()), len(self._known) + 1)
        if number > len(self._held):
            self._held.append(summed)
        return number


def _bytes(each: Fraction, block: int, channels: Value) -> int:
    size = each * rounded(int(channels), block)
    if size.denominator != 1:
        raise CostError(
            f"peak_memory: a tensor of {float(size):g} bytes where {channels} channels are chosen, "
            "so that its size does not follow from its width; take another cost"
        )
    return size.numerator
