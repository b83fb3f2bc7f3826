"""``torch.einsum`` as rules take it: axes by letters, and as a linear function where it is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from string import ascii_letters
from typing import Any

from torch import fx
from torch.nn import functional as F

from boundnas.convert.graph import Traced
from boundnas.convert.record import in_a_row

Letters = Sequence[str]


def as_linear(traced: Traced, node: fx.Node, is_weight: Callable[[fx.Node], bool]) -> fx.Node:
    """Have an ``einsum`` of a map and a weight be the linear function that it is.

    Any other names the axes of its result, and its maps have as many axes as each other.

    Args:
        traced: The network.
        node: The call.
        is_weight: Whether a node is a weight that a layer can hold or compute.

    Returns:
        The linear function, or the call.
    """
    maps = in_a_row(node.args[1:])
    if not isinstance(node.args[0], str) or not all(isinstance(x, fx.Node) for x in maps):
        return node
    left, arrow, right = node.args[0].replace(" ", "").partition("->")
    once = (a for a in sorted(set(left) - {*".,"}) if left.count(a) == 1)
    right = right if arrow else "".join(("..." * ("." in left), *once))
    node.args = (f"{left}->{right}", *maps)
    terms = [_named(term, x) for term, x in zip(left.split(","), maps, strict=True)]
    result = _named(right, node)
    if len(maps) == 2:
        for x, w in ((0, 1), (1, 0)):
            known = maps[x].meta["values"] and is_weight(maps[w])
            if known and _is_linear(terms[x], terms[w], result):
                traced.rounds = True
                return _linear(traced, node, (maps[x], terms[x]), (maps[w], terms[w]), result)
    _of_one_rank(traced, node, terms, result)
    return node


def _named(term: str, node: fx.Node) -> list[str]:
    """A letter for each axis; those that an ellipsis stands for have numbers, from the last."""
    before, dots, after = term.partition("...")
    rank = len(node.meta["form"].shape)
    between = range(rank - len(before) - len(after) if dots else 0)
    return [*before, *(str(i) for i in reversed(between)), *after]


def _is_linear(x: Letters, w: Letters, result: Letters) -> bool:
    """Whether axes of a map, the last ones or those in whose place others come last, are summed
    with a weight's.
    """
    if any(len(set(term)) < len(term) for term in (x, w, result)):
        return False
    summed, new = [a for a in x if a in w], [a for a in w if a not in x]
    others = [a for a in x if a not in summed]
    if not (summed and new and others):
        return False
    last = set(x[len(others) :]) == set(summed) or set(result[len(others) :]) == set(new)
    return last and sorted(result) == sorted([*others, *new])


def _linear(
    traced: Traced,
    node: fx.Node,
    x: tuple[fx.Node, Letters],
    w: tuple[fx.Node, Letters],
    result: Letters,
) -> fx.Node:
    """A linear function before a node, which gives what comes of it in other axes."""
    summed, new = [a for a in x[1] if a in w[1]], [a for a in result if a not in x[1]]
    kept = [a for a in x[1] if a not in summed]
    sizes = dict(zip(w[1], w[0].meta["form"].shape, strict=True))
    rows, columns = (math.prod(sizes[a] for a in each) for each in (new, summed))
    map_ = _permuted(traced, node, *x, [*kept, *summed])
    outer = map_.meta["form"].shape[: len(kept)]
    if len(summed) > 1:
        map_ = traced.put(node, map_, "flatten", (-len(summed),), (*outer, columns))
    weight = _permuted(traced, node, *w, [*new, *summed])
    if len(w[1]) > 2:
        weight = traced.put(node, weight, "reshape", (rows, columns), (rows, columns))
    if len(new) == 1 and result == [*kept, *new]:
        node.target, node.args = F.linear, (map_, weight)
        return node
    linear = last = traced.put(node, map_, F.linear, (weight,), (*outer, rows))
    linear.meta["macs"], node.meta["macs"] = node.meta["macs"], 0
    if len(new) > 1:
        heads = [sizes[a] for a in new]
        last = traced.put(node, last, "unflatten", (-1, heads), (*outer, *heads))
    node.op, node.target = "call_method", "permute"
    node.args = (last, *([*kept, *new].index(a) for a in result))
    return linear


def _permuted(
    traced: Traced, node: fx.Node, x: fx.Node, letters: Letters, order: Letters
) -> fx.Node:
    places = [letters.index(a) for a in order]
    if places == [*range(len(places))]:
        return x
    shape = [x.meta["form"].shape[i] for i in places]
    return traced.put(node, x, "permute", tuple(places), shape)


def _of_one_rank(traced: Traced, node: fx.Node, terms: list[list[str]], result: list[str]) -> None:
    """Have the maps of an ``einsum`` over samples be of as many axes, further ones of one entry.

    Then all show by their first axis that they are of samples, so that a part can be taken.
    """
    letters = {a for term in terms for a in term}
    if not result or any(term[:1] != result[:1] or not term[0].isalpha() for term in terms):
        return
    if any(len(a) > 1 or not a.isalpha() for a in letters):
        return
    free, rank = iter(sorted(set(ascii_letters) - letters)), max(map(len, terms))
    for i, term in enumerate(terms):
        while len(term) < rank:
            x: Any = node.args[i + 1]
            term.append(next(free))
            shape = (*x.meta["form"].shape, 1)
            node.update_arg(i + 1, traced.put(node, x, "unsqueeze", (-1,), shape))
    node.update_arg(0, f"{','.join(map(''.join, terms))}->{''.join(result)}")
