"""The law of functions for maps that were normalized over a searched width.

Such a map has other values for every option (`boundnas.elastic.varied`), which functions act on one
by one. They obey the same law as ever, looked at on the option of all channels: what a function
gives of its leading channels and of the rest apart is what it gives of both together. So a user
need not know which maps came out of a norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.ghost import Ghosted, join
from boundnas.elastic.varied import Varied
from boundnas.guard.call import near, trace_of
from boundnas.guard.segments import Segment


def stand_ins(searched: Sequence[Ghosted]) -> dict[int, Ghosted]:
    """For every varied map, by its identity, its option of all channels in two parts.

    None where all channels are active: then there is nothing to look at.
    """
    found = {}
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for x in searched:
            if not isinstance(x, Varied):
                continue
            whole, axis = x.options.whole_map, x.options.axis
            chosen = x.active.shape[axis]
            rest = whole.shape[axis] - chosen
            if rest:
                parts = (part.clone() for part in whole.split([chosen, rest], axis))
                found[id(x)] = stand_in = join(*parts)
                stand_in.__dict__["trace"] = trace_of(x)
    return found  # type: ignore[return-value]


def agree(result: Any, known: Any) -> bool:
    """Whether the option of all channels is what its two parts give together; traces go over."""
    if isinstance(result, list | tuple):
        return all(agree(one, other) for one, other in zip(result, known, strict=True))
    if not isinstance(result, Varied):
        return True
    trace = trace_of(known)
    result.__dict__["trace"] = trace
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        together = torch.cat((known.active.detach(), known.ghost), trace.channels)
        whole = result.options.whole_map
        return together.shape == whole.shape and near(together, whole)


def follow(result: Any, first: Ghosted) -> None:
    """Note where a map comes from of which all channels are active."""
    if isinstance(result, list | tuple):
        for each in result:
            follow(each, first)
    elif isinstance(result, Varied):
        axis = result.options.axis + Tensor.dim(result.active)
        alike = (Segment((), result.options.whole[result.options.axis], 0),)
        known = replace(trace_of(first), channels=axis, samples=0, segments=alike)
        result.__dict__["trace"] = known
