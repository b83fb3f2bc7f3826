"""What users say about the dimensions of a network: rules by name pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from boundnas.errors import ConvertError
from boundnas.typed import check_argument, checked

RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Widths by default, as parts of the network's own."""

DIVISOR = 8
"""Of widths by default, where the network's own is 32 and more."""


@checked
@dataclass(frozen=True)
class Rule:
    """How dimensions are searched. What is left out stays by default.

    Args:
        choices: Widths to choose from, ascending; the last is the network's own.
        ratios: Widths as parts of the network's own, in ``(0, 1]``; 1 is among them.
        divisor: Widths by ratios are multiples of it.
        kernel: Kernel sizes to choose from, ascending, the network's own the last.
        depth: Numbers of layers of a stage, ascending, all of them the last.
        heads: Numbers of attention heads, ascending, all of them the last.

    Raises:
        ConvertError: Choices and ratios are both given, or what is given cannot be.
    """

    choices: Sequence[int] | None = None
    ratios: Sequence[float] | None = None
    divisor: int | None = None
    kernel: Sequence[int] | None = None
    depth: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("choices", "kernel", "depth", "heads"):
            _check_ascending(name, getattr(self, name))
        if self.choices is not None and (self.ratios or self.divisor):
            raise ConvertError("a rule says widths by choices, or by ratios and a divisor")
        if self.ratios is not None:
            check_argument("Rule", "ratios", self.ratios, Sequence[float])
            if not self.ratios or not all(0 < r <= 1 for r in self.ratios) or 1 not in self.ratios:
                raise ConvertError(f"ratios lie in (0, 1], and 1 is one; found {self.ratios}")
        check_argument("Rule", "divisor", self.divisor, int | None)
        if self.divisor is not None and self.divisor < 1:
            raise ConvertError(f"a divisor is at least 1, found {self.divisor}")

    def says(self, kind: str) -> bool:
        """Whether it says anything about dimensions of a kind."""
        if kind == "width":
            return any(x is not None for x in (self.choices, self.ratios, self.divisor))
        return getattr(self, kind) is not None


Rules = Mapping[str, Rule | None]
"""By name pattern; none keeps what it matches as it is."""


def _check_ascending(name: str, given: Sequence[int] | None) -> None:
    if given is None:
        return
    check_argument("Rule", name, given, Sequence[int])
    if not given or list(given) != sorted(set(given)) or given[0] < 1:
        raise ConvertError(f"{name} are whole numbers of at least 1, ascending; found {given}")


@dataclass(frozen=True)
class Candidate:
    """A dimension that a network could have.

    Args:
        name: Of the dimension.
        kind: ``"width"``, ``"heads"``, ``"kernel"`` or ``"depth"``.
        modules: Names of modules that rules may call it by.
        own: The value that the network has.
        unit: Widths are multiples of it.
        least: The smallest value there can be.
    """

    name: str
    kind: str
    modules: tuple[str, ...]
    own: int
    unit: int = 1
    least: int = 1

    def matches(self, pattern: str) -> bool:
        """Whether a pattern names it."""
        return any(fnmatchcase(name, pattern) for name in (self.name, *self.modules))


def choices(candidate: Candidate, rules: Rules) -> tuple[int, ...] | str:
    """What a dimension is chosen from, or why it stays as it is.

    Of several rules that say something, the last one counts.

    Raises:
        ConvertError: A rule cannot be met; says what could.
    """
    for pattern, rule in reversed(list(rules.items())):
        if not candidate.matches(pattern):
            continue
        if rule is None:
            return f"by the rule {pattern!r}"
        if rule.says(candidate.kind):
            return _by_rule(candidate, pattern, rule)
    return _by_default(candidate)


def _by_default(candidate: Candidate) -> tuple[int, ...]:
    own, least = candidate.own, candidate.least
    if candidate.kind == "width":
        return widths(own, candidate.unit, RATIOS, _divisor(own))
    if candidate.kind == "heads":
        return widths(own, 1, RATIOS, 1)
    if candidate.kind == "depth":
        return tuple(range(max(least, (own + 1) // 2), own + 1))
    return tuple(range(max(least, 3), own + 1, 2))


def _divisor(own: int) -> int:
    """Eight, and less where that would leave few widths."""
    return next(d for d in (DIVISOR, 4, 2, 1) if d == 1 or own >= 4 * d)


def widths(own: int, unit: int, ratios: Sequence[float], divisor: int) -> tuple[int, ...]:
    """Multiples near the ratios, at least the divisor, the network's own the last."""
    found = {own}
    step = max(unit, divisor // unit * unit if divisor % unit == 0 else unit)
    for ratio in ratios:
        width = max(step, round(own * ratio / step) * step)
        found.add(min(width, own))
    return tuple(sorted(w for w in found if w % unit == 0))


def _by_rule(candidate: Candidate, pattern: str, rule: Rule) -> tuple[int, ...]:
    own, unit = candidate.own, candidate.unit
    if candidate.kind == "width" and rule.choices is None:
        divisor = rule.divisor or _divisor(own)
        return widths(own, unit, rule.ratios or RATIOS, divisor)
    given: Sequence[int] = getattr(rule, "choices" if candidate.kind == "width" else candidate.kind)
    wrong = [n for n in given if n > own or n < candidate.least or n % unit]
    if candidate.kind == "kernel":
        wrong += [n for n in given if n % 2 == 0]
    if wrong or given[-1] != own:
        multiples = f", multiples of {unit}" if unit > 1 else ""
        odd = ", odd" if candidate.kind == "kernel" else ""
        raise ConvertError(
            f"the rule {pattern!r} gives {candidate.name} the choices "
            f"{', '.join(map(str, given))}; it can have {candidate.least} to {own}{multiples}{odd},"
            f" and the last is the network's own, {own}"
        )
    return tuple(given)


def check_patterns(rules: Rules, candidates: Sequence[Candidate], fixed: Mapping[str, str]) -> None:
    """Refuse rules that nothing meets.

    Args:
        rules: The user's.
        candidates: The dimensions there are.
        fixed: All modules by name, and why those stay as they are that do.

    Raises:
        ConvertError: Names the pattern, and what there is.
    """
    for pattern, rule in rules.items():
        matched = [c for c in candidates if c.matches(pattern)]
        if any(rule is None or rule.says(c.kind) for c in matched):
            continue
        names = [name for name in fixed if fnmatchcase(name, pattern)]
        if rule is None and names:
            continue
        why = next((f"; {n} stays as it is: {fixed[n]}" for n in names if fixed[n]), "")
        there = ", ".join(c.name for c in candidates)
        raise ConvertError(
            f"the rule {pattern!r} matches no dimension that it says something about{why}. There "
            f"are {there or 'none'}"
        )
