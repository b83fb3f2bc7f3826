"""The cost in milliseconds: exact from its table, differentiable, and refused where it is wrong."""

import itertools
import json
import logging
import math
import re
from functools import partial

import pytest
import torch
from benchmarks.latency import FOLDER, model_of
from tests.latency import latency_model
from tests.spaces import seeded
from tests.times import latency, table_of
from torch.nn.functional import softmax

from boundnas import Supernet, elastic
from boundnas.cost import Latency, LatencyTable, MACs, terms
from boundnas.cost.table import Held, Validation, spearman
from boundnas.errors import ArgumentError, CostError
from boundnas.randomness import stream
from boundnas.space import Architecture, Joined
from boundnas.store.files import canonical_json


def odd(signature):
    """Times that lie at no whole numbers between two measured ones."""
    return 10007 + sum(map(ord, signature)) % 9973


def between(block, options):
    """The time of a block where options of its dimensions are chosen, by its table's own words."""
    axes = [axis for axis in block.axes if len(axis.dimensions) == 1]
    places = [axis.at[0][options[axis.dimensions[0]]] for axis in axes]
    if None in places:
        return 0.0
    total = 0.0
    for corner in itertools.product((0, 1), repeat=len(places)):
        weights = [(p % 1) if c else 1 - (p % 1) for p, c in zip(places, corner, strict=True)]
        points = [
            min(int(p) + c, a.points - 1) for p, c, a in zip(places, corner, axes, strict=True)
        ]
        index = 0
        for point, axis in zip(points, axes, strict=True):
            index = index * axis.points + point
        total += math.prod(weights) * block.times[index]
    return total


def multilinear(table, space, gates):
    """``sum_ij... z_i w_j ... t_ij...`` over all options of the dimensions of each block."""
    by_name = {d.name: (d, gate) for d, gate in zip(space.dimensions, gates, strict=True)}
    total = torch.tensor(float(table.offset), dtype=torch.float64)
    for block in table.blocks:
        names = [name for axis in block.axes for name in axis.dimensions]
        for chosen in itertools.product(*(range(len(by_name[name][0])) for name in names)):
            time = round(table.scale * between(block, dict(zip(names, chosen, strict=True))))
            total = total + time * math.prod(
                by_name[name][1][j] for name, j in zip(names, chosen, strict=True)
            )
    return total


@pytest.mark.parametrize("name", ["own_network", "tokens", "vit", "attentive_nas", "convnext"])
def test_the_relaxed_latency_is_the_multilinear_form_with_every_options_gradient(name):
    model = latency_model(name)
    table = table_of(model, 0, odd, offset=-4321, scale=1.0625)
    cost, space = Latency(model, table), model.space
    generator = torch.Generator().manual_seed(0)
    gates = [torch.rand(len(d), generator=generator, dtype=torch.float64) for d in space.dimensions]
    gates = [(gate / gate.sum()).requires_grad_() for gate in gates]
    found = cost.relaxed(space.largest.carrying(gates=tuple(gates)))
    expected = multilinear(table, space, gates)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    slopes = torch.autograd.grad(found, gates, allow_unused=True, materialize_grads=True)
    exact = torch.autograd.grad(expected, gates, allow_unused=True, materialize_grads=True)
    for dimension, f, e in zip(space.dimensions, slopes, exact, strict=True):
        # Where no option of a dimension makes a difference it may be left out of the form.
        f, e = f - f.mean(), e - e.mean()
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-6, msg=dimension.name)
    with torch.no_grad():
        for i, j in ((0, 0), (1, 1), (len(gates) - 1, 0)):
            moved = [gate.clone() for gate in gates]
            moved[i][j] += 1
            there = cost.relaxed(space.largest.carrying(gates=tuple(moved)))
            assert (there - found).item() == pytest.approx(slopes[i][j].item(), rel=1e-9)


MEANT = {  # a range that was given, of a model that takes 0.1 to 1 ms, and what is said of it
    "milliseconds": (
        (0.2, 0.5),
        r"^no network of this space costs 2e-07 to 5e-07 ms: they reach from 0\.1 to 1 ms; .*; if "
        r"0\.2 to 0\.5 ms was meant, that is lower: 0\.2, upper: 0\.5 in a configuration, and "
        r"cost_range=\(200000, 500000\) from Python, in nanoseconds$",
    ),
    "nanoseconds in a configuration": (
        (200_000 * 10**6, 500_000 * 10**6),
        r"costs 200000 to 500000 ms: they reach .*; if 0\.2 to 0\.5 ms was meant, that is",
    ),
    "the wrong way round": ((5e5, 2e5), r"found 500000\.0 to 200000\.0 nanoseconds$"),
}


@pytest.mark.parametrize(("limits", "said"), MEANT.values(), ids=MEANT)
def test_a_range_in_another_unit_is_refused_in_milliseconds_and_in_what_python_takes(limits, said):
    cost = latency(latency_model("vit"))
    cost.reach = (100_000, 1_000_000)
    with pytest.raises(CostError, match=said):
        cost.check_range(*limits)


def test_an_architecture_costs_whole_nanoseconds_scale_and_offset_included():
    model = latency_model("vit")
    table = table_of(model, 0, odd, offset=777, scale=0.9)
    cost = Latency(model, table)
    for step in range(20):
        arch = model.space.sample(stream(0, "whole", step))
        options = {d.name: i for d, i in zip(model.space.dimensions, arch.indices, strict=True)}
        assert cost(arch) == 777 + sum(round(0.9 * between(b, options)) for b in table.blocks)
    assert (cost.name, cost.unit, cost.per_unit) == ("latency", "ms", 10**6)


@pytest.mark.parametrize("name", ["own_network", "attentive_nas"])
def test_a_long_sum_is_laid_out_otherwise_and_is_the_same(name, monkeypatch):
    model = latency_model(name)
    table, space = table_of(model, 0, odd), model.space
    short = Latency(model, table)
    monkeypatch.setattr(terms, "LONG", 0)
    long = Latency(model, table)
    assert long.terms[0].shape[1] < short.terms[0].shape[1]
    generator = torch.Generator().manual_seed(0)
    gates = [torch.rand(len(d), generator=generator, dtype=torch.float64) for d in space.dimensions]
    found = []
    for cost in (short, long):
        leaves = [gate.clone().requires_grad_() for gate in gates]
        value = cost.relaxed(space.largest.carrying(gates=tuple(leaves)))
        slopes = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([value.detach()[None], *slopes]))
        exact = [cost(space.sample(stream(0, "long", step))) for step in range(9)]
        assert exact == [short(space.sample(stream(0, "long", step))) for step in range(9)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-9)


def test_widths_of_maps_side_by_side_count_by_their_sum():
    class Side(Supernet):
        def __init__(self):
            super().__init__((3, 4, 4))
            widths = [self.dimension(f"width{i}", (2, 3, 5)) for i in range(5)]
            self.each = torch.nn.ModuleList(elastic.Conv2d(3, width) for width in widths)
            self.last = elastic.Conv2d(Joined(tuple(widths)), 4)
            self.head = elastic.Linear(4, 2)

        def forward(self, x, arch):
            x = torch.cat([layer(x, arch) for layer in self.each], 1)
            return self.head(self.last(x, arch).mean((2, 3)), arch)

    model = seeded(Side)
    table = table_of(model, 0)
    last = [b for b in table.blocks if b.name == "last"]
    alone = Latency(model, table.model_copy(update={"blocks": tuple(last)}))
    low, high = last[0].times
    for indices in itertools.product(range(3), repeat=5):
        width = sum((2, 3, 5)[j] for j in indices)
        expected = low + (high - low) * (width - 10) / 15
        assert alone(Architecture(model.space, indices)) == pytest.approx(expected, abs=2.5)


def changed(**values):
    return lambda table: {**table, **values}


def entry(value):
    """A table with another first time of its first block."""

    def change(table):
        first, *others = table["blocks"]
        first = {**first, "times": [value, *first["times"][1:]]}
        return {**table, "blocks": [first, *others]}

    return change


def fewer(table):
    first, *others = table["blocks"]
    return {**table, "blocks": [{**first, "times": first["times"][:-1]}, *others]}


def scaled(factor):
    def change(table):
        blocks = [
            {**b, "times": [t * factor // 10**9 for t in b["times"]]} for b in table["blocks"]
        ]
        return {**table, "blocks": blocks}

    return change


def other_input(table):
    return {**table, "model": {**table["model"], "input": "float32 of shape (3, 9, 9)"}}


def other_choices(table):
    first, *others = table["model"]["dimensions"]
    return {
        **table,
        "model": {**table["model"], "dimensions": [{**first, "choices": [1, 2]}, *others]},
    }


def other_layers(table):
    return {**table, "model": {**table["model"], "layers": "0"}}


def fewer_options(table):
    first, *others = table["blocks"]
    axis = {**first["axes"][0], "at": [first["axes"][0]["at"][0][:-1]]}
    return {**table, "blocks": [{**first, "axes": [axis, *first["axes"][1:]]}, *others]}


def beyond(table):
    first, *others = table["blocks"]
    axis, *further = first["axes"]
    axis = {**axis, "at": [[*axis["at"][0][:-1], 1.5]]}
    return {**table, "blocks": [{**first, "axes": [axis, *further]}, *others]}


AGAIN = r"; measure it again with boundnas.latency.measure, or restore the file$"
FAULTS = {  # what is done to a table, and what is said of it
    "another input": (
        other_input,
        r"is of another model: it has float32 of shape \(3, 9, 9\), and this one has float32 of "
        r"shape \(2, 8, 8\); measure this model, or take the table that was made of it$",
    ),
    "another space": (
        other_choices,
        r"is of another model: it has the dimension tokens.width of 1, 2, and this one has the "
        r"dimension tokens.width of 3, 5, 8; ",
    ),
    "other layers": (
        other_layers,
        "is of another model: it has other layers or another forward, and this one has the same "
        "inputs and space; ",
    ),
    "a missing entry": (fewer, rf"blocks\.0: patches has 1 times where its grid has 2 .*{AGAIN}"),
    "a missing block": (changed(blocks=[]), rf": blocks: .* at least 1 item.*{AGAIN}"),
    "NaN": (entry(math.nan), rf": blocks\.0\.times\.0: .*{AGAIN}"),
    "a negative time": (entry(-5), rf"blocks\.0\.times\.0: .*greater than or equal to 0{AGAIN}"),
    "no number": (entry("fast"), rf"blocks\.0\.times\.0: Input should be a valid integer{AGAIN}"),
    "a fraction": (entry(1.5), rf"blocks\.0\.times\.0: Input should be a valid integer.*{AGAIN}"),
    "milliseconds": (
        scaled(1000),
        r"the largest network takes 0 ms by it, for \d[\d,]* multiply-accumulates, which no "
        r"machine does; times in a table are whole nanoseconds, 1,000,000 of them a millisecond$",
    ),
    "microseconds": (
        changed(batch=10**9),
        r"takes [\d.]+ ms by it, for \d,\d\d\d,000,000,000 multiply-accumulates, which ",
    ),
    "a place nowhere": (
        beyond,
        rf"blocks\.0\.axes\.0: a place beyond its 2 points{AGAIN}",
    ),
    "picoseconds": (scaled(10**20), "the largest network takes .* ms by it, for "),
    "an unknown schema": (changed(schema_version=2), rf"schema_version: Input should be 1{AGAIN}"),
    "another key": (changed(speed=1), rf": speed: Extra inputs are not permitted{AGAIN}"),
    "a scale of zero": (changed(scale=0), rf": scale: Input should be greater than 0{AGAIN}"),
    "other options": (
        fewer_options,
        r"^latency: patches depends on tokens.width with 2 options by the table, which is no such "
        r"dimension of the model; measure the table again$",
    ),
}


@pytest.fixture(scope="module")
def good():
    return latency_model("vit"), table_of(latency_model("vit"), 0)


@pytest.mark.parametrize(("change", "said"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_table_is_refused_by_one_error(change, said, good, tmp_path):
    model, table = good
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(change(table.written())))
    with pytest.raises(CostError, match=said):
        Latency(model, path)


class Light(Supernet):
    """Two convolutions; what is light between and after them is given."""

    def __init__(self, between=torch.relu, pool=(1, 1, 0), dilation=1):
        super().__init__((3, 8, 8))
        self.width = self.dimension("width", (2, 3, 5))
        self.one = elastic.Conv2d(3, self.width, 3, padding=dilation, dilation=dilation)
        self.two = elastic.Conv2d(self.width, 4)
        self.pool, self.head = torch.nn.AvgPool2d(*pool), elastic.Linear(4, 2)
        self.between, self.plain = between, torch.nn.Conv2d(4, 4, 3)

    def forward(self, x, arch):
        x = self.between(self.one(x, arch))
        x = self.plain(self.pool(self.two(x, arch)))
        return self.head(self.after(x, arch[self.width]).mean((2, 3)), arch)

    def after(self, x, width):
        return x


class Middle(Light):
    """Another one at its middle width alone."""

    def after(self, x, width):
        return x.relu() if width == 3 else x


class Largest(Light):
    """Another one at its largest width alone."""

    def after(self, x, width):
        return x.relu() if width == 5 else x


FORWARDS = {
    "as it is": Light,
    "another function": lambda: Light(torch.sigmoid),
    "one more function": lambda: Light(lambda x: x.relu().relu()),
    "a function with another argument": lambda: Light(partial(softmax, dim=1)),
    "one function less": lambda: Light(lambda x: x),
    "a layer of other numbers": lambda: Light(pool=(3, 1, 1)),
    "a layer that reads farther": lambda: Light(dilation=2),
    "one more where a dimension has its middle option": Middle,
    "one more where a dimension has its largest option": Largest,
}
"""Forwards with the same layers, shapes and multiply-accumulates, each beside every other one."""


@pytest.mark.parametrize("name", FORWARDS)
def test_a_table_is_of_one_forward_and_no_other_with_the_same_layers(name):
    model = seeded(FORWARDS[name])
    table = table_of(model, 0)
    assert Latency(seeded(FORWARDS[name]), table).table is table
    last = seeded(FORWARDS[name]).to(memory_format=torch.channels_last)
    assert not last.plain.weight.is_contiguous()
    assert Latency(last, table).table is table, "the same, with weights that lie otherwise"
    for other in FORWARDS.keys() - {name}:
        beside = seeded(FORWARDS[other])
        assert MACs(beside).reach == MACs(model).reach
        with pytest.raises(CostError, match="it has other layers or another forward, and this"):
            Latency(beside, table)


MISTAKEN = {
    "no model": (
        lambda model, table: Latency(table),
        r"^Latency: missing a required argument: 'table'; it is called as Latency\(model, table, ",
    ),
    "no table": (lambda model, table: Latency(model), "missing a required argument: 'table'"),
    "the wrong way round": (
        lambda model, table: Latency(table, model),
        "^Latency: model must be Supernet, found LatencyTable ",
    ),
    "a path for the model": (
        lambda model, table: Latency("phone.json", table),
        "^Latency: model must be Supernet, found str 'phone.json'$",
    ),
    "a number": (
        lambda model, table: Latency(model, 5),
        "^Latency: table must be LatencyTable or Path or str, found int 5$",
    ),
}


@pytest.mark.parametrize(("call", "said"), MISTAKEN.values(), ids=MISTAKEN)
def test_a_cost_without_its_model_or_table_is_refused_by_name(call, said, good):
    with pytest.raises(ArgumentError, match=said):
        call(*good)


class Renamed(Supernet):
    """What `Light` computes, by parts of other names and classes, in a hierarchy of its own."""

    def __init__(self):
        super().__init__((3, 8, 8))
        self.number = self.dimension("width", (2, 3, 5))
        wide, thin = elastic.Conv2d(3, self.number, 3), elastic.Conv2d(self.number, 4)
        self.parts = torch.nn.ModuleDict({"body": torch.nn.ModuleList([wide, thin])})
        self.parts["end"] = elastic.Linear(4, 2)
        self.register_buffer("unused", torch.zeros(3))
        self.others = torch.nn.ModuleList([torch.nn.Conv2d(4, 4, 3), torch.nn.AvgPool2d(1, 1, 0)])

    def forward(self, x, arch):
        wide, thin = self.parts["body"]
        other, pool = self.others
        x = other(pool(thin(torch.relu(wide(x, arch)), arch)))
        return self.parts["end"](x.mean((2, 3)), arch)


def test_a_table_is_of_what_networks_compute_and_not_of_how_a_supernet_is_written():
    light, renamed = seeded(Light), seeded(Renamed)
    table = table_of(light, 0)
    assert Latency(renamed, table).reach == Latency(light, table).reach


class Beside(Supernet):
    """Two widths side by side; the first or the second is read by the larger kernel."""

    def __init__(self, swapped):
        super().__init__((3, 8, 8))
        widths = [self.dimension(name, (2, 3, 5)) for name in ("first", "second")]
        one, two = reversed(widths) if swapped else widths
        self.one, self.two = elastic.Conv2d(3, one), elastic.Conv2d(3, two)
        self.three, self.four = elastic.Conv2d(one, 4, 3), elastic.Conv2d(two, 4)
        self.head = elastic.Linear(4, 2)

    def forward(self, x, arch):
        one, two = self.three(self.one(x, arch), arch), self.four(self.two(x, arch), arch)
        return self.head((one + two).mean((2, 3)), arch)


def test_all_that_multiplies_tells_models_apart_that_are_alike_where_all_dimensions_ascend():
    one, other = (seeded(partial(Beside, swapped)) for swapped in (False, True))
    for option in range(3):
        same = (MACs(m)(Architecture(m.space, (option, option))) for m in (one, other))
        assert len(set(same)) == 1
    with pytest.raises(CostError, match="it has other layers or another forward, and this"):
        Latency(other, table_of(one, 0))


COMMITTED = ("digits", "digits-torch", "resnet", "table1", "table1-torch", "vit")


@pytest.mark.parametrize("name", COMMITTED)
def test_the_tables_of_the_docs_are_of_the_models_that_they_name(name):
    assert Latency(model_of(name), FOLDER / f"{name}.json").table.validation.is_met


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"schema_version": 1, "blo', "Invalid JSON: EOF while parsing"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (None, "phone.json: is missing; check its name, or put the file there$"),
    ],
)
def test_a_damaged_table_is_refused(content, said, good, tmp_path):
    path = tmp_path / "phone.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CostError, match=said):
        Latency(good[0], path)


def test_a_table_is_read_as_it_was_written(good, tmp_path):
    table = good[1].model_copy(update={"validation": validation(0.0), "noise": 0.01})
    path = tmp_path / "phone.json"
    path.write_text(canonical_json(table.written()))
    assert LatencyTable.read(path) == table


def validation(error):
    networks = [(1000 * n, round(1000 * n * (1 + error)), n % 3) for n in range(1, 60)]
    return Validation(
        networks=tuple(
            Held(predicted=p, measured=m, macs=macs, by_macs=2 * m) for p, m, macs in networks
        )
    )


def test_validation_says_how_far_predictions_can_be_relied_on():
    good, bad = validation(0.05), validation(0.25)
    assert (good.spearman, good.near, good.is_met) == (1, 1, True)
    assert good.error == pytest.approx(1 - 1 / 1.05, rel=1e-3)
    assert (bad.spearman, bad.near, bad.is_met) == (1, 0, False)
    assert abs(good.spearman_of_macs) < 0.1
    assert spearman([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.9486832980505138)
    swapped = Validation(
        networks=tuple(
            Held(predicted=100 - n, measured=100 + n, macs=n, by_macs=n) for n in range(9)
        )
    )
    assert (swapped.spearman, swapped.error < 0.1, swapped.is_met) == (-1, True, False)


MACHINE = {"cpu": "Abacus", "instructions": "none"}
WARNINGS = {
    "not validated": ({"validation": None}, "were not compared with networks that were timed"),
    "gate missed": (
        {"validation": validation(0.25)},
        r"rank correlation 1\.000 \(at least 0\.95\), mean error 20\.0% \(at most 10%\); measure",
    ),
    "another machine": (
        {"validation": validation(0), "machine": MACHINE},
        r"was measured with cpu Abacus, here .*; its predictions are for that machine",
    ),
    "another runtime": (
        {"validation": validation(0), "runtime": "torch", "runtime_version": "0.1"},
        r"was measured with torch 0\.1, here \d.*; its predictions are for that machine",
    ),
    "nothing": ({"validation": validation(0)}, None),
}


@pytest.mark.parametrize(("values", "said"), WARNINGS.values(), ids=WARNINGS)
def test_what_makes_predictions_less_reliable_is_warned_of(values, said, good, caplog):
    model, table = good
    with caplog.at_level(logging.WARNING):
        Latency(model, table.model_copy(update=values))
    if said is None:
        assert caplog.messages == []
    else:
        assert len(caplog.messages) == 1
        assert re.search(said, caplog.messages[0])
