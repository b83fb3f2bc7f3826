"""The dimensions of a network: widths of its channel groups, kernels, depths."""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from boundnas.convert.axes import Axis, Group, Reason, Segment
from boundnas.convert.blocks import Run, runs
from boundnas.convert.facts import Binding, Read
from boundnas.convert.rules import Candidate, Rules, check_patterns, choices
from boundnas.errors import ConvertError
from boundnas.space import Dimension, Joined, Setting, Width


@dataclass
class Plan:
    """What of a network is searched.

    Args:
        read: What is known of it.
        widths: A dimension for each group that is searched.
        kernels: Likewise, by the name of the convolution.
        depths: The runs of blocks that are searched, and their dimensions.
        kept: Why kernels and depths that could be searched are not, by name.
    """

    read: Read
    widths: dict[Group, Dimension] = field(default_factory=dict)
    kernels: dict[str, Dimension] = field(default_factory=dict)
    depths: list[tuple[Run, Dimension]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def dimensions(self) -> list[Dimension]:
        """All of them, in the order of the network's calls."""
        found = [*self.widths.values(), *self.kernels.values(), *(d for _, d in self.depths)]
        order = {name: i for i, name in enumerate(self.read.bindings)}

        def place(dimension: Dimension) -> int:
            owner = dimension.name.rpartition(".")[0]
            starts = (i for name, i in order.items() if name.startswith(owner))
            return order.get(owner, next(starts, len(order)))

        return sorted(found, key=place)

    def width(self, axis: Axis | None, size: int) -> Width:
        """What a layer is built with for an axis of so many channels."""
        if axis is None or not self.is_searched(axis):
            return size
        parts = tuple(self._setting(segment) for segment in axis.segments)
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _setting(self, segment: Segment) -> Setting:
        group = segment.group
        if (dimension := self.widths.get(group)) is None:
            return segment.size
        factor = segment.factor * (group.unit if group.heads else 1)
        return dimension if factor == 1 else dimension.map(lambda c: int(c * factor))

    def is_searched(self, axis: Axis | None) -> bool:
        """Whether any of an axis is."""
        return axis is not None and any(group in self.widths for group in axis.groups)


def propose(read: Read, rules: Rules, kept: Mapping[str, str]) -> Plan:
    """The dimensions of a network under a user's rules.

    Args:
        read: What is known of it.
        rules: The user's.
        kept: Dimensions that are found not to work, and why.

    Raises:
        ConvertError: A rule that nothing meets, or nothing that could be searched.
    """
    plan = Plan(read)
    groups = [g for g in read.groups() if g.reason is None and g.makers]
    candidates: dict[str, tuple[Candidate, Any]] = {}

    def enter(candidate: Candidate, what: Any) -> None:
        candidates[candidate.name] = candidate, what

    for group in groups:
        kind = "width" if group.heads is None else "heads"
        name = _free(f"{group.makers[0]}.{kind}", candidates)
        own, unit = (group.heads, 1) if group.heads else (group.size, group.unit)
        enter(Candidate(name, kind, tuple(group.makers), own, unit), group)
    for binding in read.bindings.values():
        if (kernel := _kernel(binding)) is not None:
            enter(kernel, binding)
    for run in runs(read):
        blocks = tuple(block.name for block in run.blocks)
        enter(Candidate(f"{run.name}.depth", "depth", (run.name, *blocks), len(blocks)), run)
    fixed = {name: _why(read, name) for name, _ in read.traced.model.named_modules() if name}
    check_patterns(rules, [candidate for candidate, _ in candidates.values()], fixed)
    for candidate, what in candidates.values():
        _decide(plan, candidate, what, kept.get(candidate.name) or choices(candidate, rules))
    if not plan.dimensions:
        raise ConvertError(_nothing(read))
    return plan


def _free(name: str, taken: Container[str]) -> str:
    """Of channels that were cut into several groups, the later ones are numbered."""
    numbered = (f"{name}.{i}" for i in itertools.count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _decide(plan: Plan, candidate: Candidate, what: Any, options: tuple[int, ...] | str) -> None:
    if isinstance(options, str):
        plan.kept[candidate.name] = options
    elif len(options) == 1:
        plan.kept[candidate.name] = f"{candidate.own} is the only choice"
    else:
        dimension = Dimension(candidate.name, options, candidate.kind)
        if isinstance(what, Group):
            plan.widths[what] = dimension
        elif candidate.kind == "kernel":
            plan.kernels[what.name] = dimension
        else:
            plan.depths.append((what, dimension))
    if isinstance(what, Group) and candidate.name in plan.kept:
        what.fix(Reason(plan.kept[candidate.name]))


def _kernel(binding: Binding) -> Candidate | None:
    """The sizes of a large kernel, of the same size in all directions."""
    module = binding.module
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return None
    own = module.kernel_size[0]
    if set(module.kernel_size) != {own} or own < 5 or own % 2 == 0:
        return None
    least = max(3, own - 2 * _room(module))
    if least >= own:
        return None
    return Candidate(f"{binding.name}.kernel", "kernel", (binding.name,), own, least=least)


def _room(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> int:
    """By how many entries at each end a kernel may shrink, as its padding shrinks with it."""
    if isinstance(module.padding, str):
        return 0 if module.padding == "valid" else module.kernel_size[0]
    return min(p // d for p, d in zip(module.padding, module.dilation, strict=True))


def _why(read: Read, name: str) -> str:
    """Why a module stays as it is; nothing if it does not, or that is not known."""
    binding = read.bindings.get(name)
    if binding is not None and binding.outputs is not None:
        return next((str(g.reason) for g in binding.outputs.groups if g.reason), "")
    return next((str(b.reason) for b in read.boundaries if b.name == name), "")


def _nothing(read: Read) -> str:
    reasons = dict.fromkeys(str(g.reason) for g in read.groups() if g.reason is not None)
    reasons |= dict.fromkeys(f"{b.name} {b.reason}" for b in read.boundaries)
    return (
        "nothing of this network can be searched: "
        + ("; ".join(list(reasons)[:5]) or "it has no layers whose channels are known")
        + ". A converter for its modules may help (converters={Type: function})"
    )
