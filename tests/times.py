"""Exact times for the laws of latency, in place of measured ones."""

import math
import re
from weakref import WeakKeyDictionary

from boundnas.cost import Latency, LatencyTable
from boundnas.cost.latency import model_of
from boundnas.engine.machine import fingerprint
from boundnas.latency.blocks import blocks_of
from boundnas.latency.grid import Plan
from boundnas.supernet.signature import digest


def nanoseconds(signature):
    """A time that a block might take, from what it computes.

    It grows by every map and weight, linear in each width. Of vectors, whose widths squeezing
    rounds, only the number of lines counts.
    """
    lines = signature.split("\n")
    inputs = [shape for line in lines if line.startswith("torch.") for shape in _shapes(line)]
    vectors = any(len(shape) <= 2 for shape in inputs)
    counted = [s for s in inputs if len(s) > 2] if vectors else _shapes(signature)
    return 1000 * len(lines) + 7 * sum(map(math.prod, counted))


def _shapes(text):
    found = re.findall(r"torch\.\w+ \(([\d, ]*)\)", text)
    return [tuple(map(int, each.replace(",", " ").split())) for each in found]


_plans, _told = {}, WeakKeyDictionary()


def told(model):
    """What a table says of a supernet, which is not to be changed afterwards."""
    if model not in _told:
        _told[model] = model_of(model)
    return _told[model]


def plan(model):
    """What is measured of a supernet; one for all that are alike, not to be changed."""
    key = told(model)
    if key not in _plans:
        _plans[key] = Plan(model)
    return _plans[key]


def table_of(model, level=None, time=nanoseconds, **values):
    """A table with such times, of all levels up to one.

    By default up to the finest of small spaces, among which are those with layers that have one
    width on both sides, and the coarsest of others, where that gives the same.
    """
    found = plan(model)
    if level is None:
        level = found.levels - 1 if model.space.size < 1000 else 0
    signatures = [s for each in range(level + 1) for s in found.signatures(each)]
    return LatencyTable(
        **{
            "model": told(model),
            "runtime": "none",
            "runtime_version": "1",
            "threads": 1,
            "batch": 1,
            "machine": fingerprint(),
            "blocks": found.times({digest(s): time(s) for s in signatures}),
            **values,
        }
    )


def latency(model):
    """The cost with that table."""
    return Latency(model, table_of(model))


def counted_nanoseconds(net, x):
    """The same of an extracted network."""
    return sum(nanoseconds(block.signature) for block in blocks_of(net, len(x)))
