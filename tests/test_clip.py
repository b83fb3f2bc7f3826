"""Boundaries that begin where the cost range puts them (``train.bounds: from_cost``)."""

import logging

import pytest
import torch
from tests.small import few_digits, mobilenet
from tests.spaces import SPACES, supernet

from boundnas import SearchSettings, Supernet, TrainSettings, fit, search
from boundnas.cost import Budget, Cost, MACs, amount
from boundnas.errors import SpaceError
from boundnas.fit.clip import clip, widths
from boundnas.fit.start import start_policy
from boundnas.settings import PriorSettings

FROM_COST = {"steps": 3, "batch_size": 16, "bounds": "from_cost"}
SEARCH = SearchSettings(initial=24, rounds=1, crossovers=4, mutations=8, calibration_images=64)


class Sizes(Supernet):
    """Some dimensions and nothing more; what they cost is said by `Sum`."""

    def __init__(self, **dimensions):
        super().__init__((1,))
        for name, (choices, kind) in dimensions.items():
            self.dimension(name, choices, kind)


class Sum(Cost):
    """The sum of all options' numbers, but times ``depth`` where there is one."""

    name, unit = "sum", "pieces"

    def _polynomial(self, model):
        sizes = [d for d in model.space.dimensions if d.kind != "depth"]
        total = sum(amount(d, lambda choice: int(choice)) for d in sizes)
        for depth in set(model.space.dimensions) - set(sizes):
            total = total * amount(depth, int)
        return total


class Tens(Sum):
    """Ten times that."""

    name = "tens"

    def _polynomial(self, model):
        return 10 * super()._polynomial(model)


WIDE = ((2, 4, 6, 8), "width")
NARROW = ((10, 20, 40), "width")
DEEP = ((1, 2, 4, 8), "depth")
KERNEL = ((3, 5), "kernel")
SWITCH = ((False, True), "se")

# Dimensions, the range of their sum (times the depth), and what is left: from and up to which part
# of the largest, and the options of each dimension.
BY_HAND = {
    "both ends": ({"a": WIDE, "b": NARROW}, (25, 26), 0.5, 0.75, [(4, 6), (20,)]),
    "below alone": ({"a": WIDE, "b": NARROW}, (24, 1000), 0.5, 1, [(4, 6, 8), (20, 40)]),
    "above alone": ({"a": WIDE, "b": NARROW}, (1, 24), 0.25, 0.5, [(2, 4), (10, 20)]),
    "the whole space": ({"a": WIDE, "b": NARROW}, (1, 1000), 0.25, 1, [WIDE[0], NARROW[0]]),
    "other kinds stay whole": (
        {"a": WIDE, "k": KERNEL, "s": SWITCH}, (7, 13), 0.5, 1, [(4, 6, 8), KERNEL[0], SWITCH[0]],
    ),
    "heads are widths": ({"h": ((1, 2, 4), "heads")}, (2, 3), 0.5, 1, [(2, 4)]),
    "depths span the range alone": (
        {"a": WIDE, "d": DEEP}, (4, 10), 0.25, 0.5, [(2, 4), DEEP[0]],
    ),
    "no option inside, so the nearest ones": (
        {"a": WIDE, "b": NARROW, "d": DEEP}, (46, 200), 0.75, 0.75, [(6,), (20, 40), DEEP[0]],
    ),
}  # fmt: skip


def left(found):
    """The options that are left, by dimension."""
    rows = zip(found.space.dimensions, found.allowed, strict=True)
    return [tuple(d.choices[j] for j in options) for d, options in rows]


@pytest.mark.parametrize("case", BY_HAND)
def test_widths_are_cut_by_one_ratio_as_found_by_hand(case):
    dimensions, limits, lower, upper, options = BY_HAND[case]
    model = Sizes(**dimensions)
    found = clip(model.space, [Budget(Sum(model), limits)])
    assert (found.lower, found.upper, left(found)) == (lower, upper, options)


def test_of_several_costs_the_ends_of_every_range_are_reached():
    model = Sizes(a=WIDE, b=NARROW)
    one, tens = Sum(model), Tens(model)
    ranges = {"one": (24, 26), "tens": (120, 240)}
    found = clip(model.space, [Budget(one, ranges["one"]), Budget(tens, ranges["tens"])])
    assert left(found) == [(2, 4, 6), (10, 20)]
    assert left(clip(model.space, [Budget(one, ranges["one"])])) == [(4, 6), (20,)]
    assert left(clip(model.space, [Budget(tens, ranges["tens"])])) == [(2, 4), (10, 20)]


@pytest.mark.parametrize("name", SPACES)
def test_what_is_left_reaches_both_ends_and_any_narrower_cut_would_not(name):
    model = supernet(name)
    space, cost = model.space, MACs(model)
    least, most = cost.reach
    for low, high in ((0.05, 0.6), (0.2, 0.9), (0.4, 0.5)):
        limits = least + low * (most - least), least + high * (most - least)
        found = clip(space, [Budget(cost, limits)])
        ends = cost.reach_of(found.allowed)
        assert ends[0] <= limits[0]
        assert ends[1] >= limits[1]
        assert (cost(found.end("min")), cost(found.end("max"))) == ends
        others = [i for i, d in enumerate(space.dimensions) if d not in widths(space)]
        assert all(found.allowed[i] == space.whole[i] for i in others)
        check_narrowest(found, cost, limits)


def check_narrowest(found, cost, limits):
    """Neither ratio can be nearer to the other, unless they have met or crossed."""
    ratios = sorted({n / d.numbers[-1] for d in widths(found.space) for n in d.numbers})
    lower, upper = ratios.index(found.lower), ratios.index(found.upper)
    if upper - lower < 2:
        return
    above = options_of(found.space, ratios[lower + 1], 1)
    below = options_of(found.space, 0, ratios[upper - 1])
    crossed = cost.reach_of(options_of(found.space, found.upper, 1))[0] <= limits[0]
    assert crossed or cost.reach_of(above)[0] > limits[0]
    assert crossed or cost.reach_of(below)[1] < limits[1]


def options_of(space, lower, upper):
    """Options whose part of the largest lies within, the last or the first where none does."""
    found = []
    for d in space.dimensions:
        every = range(len(d))
        if d not in widths(space):
            found.append(tuple(every))
            continue
        inside = [j for j in every if lower <= d.numbers[j] / d.numbers[-1] <= upper]
        found.append(tuple(inside) or tuple(every[:1] if lower == 0 else every[-1:]))
    return tuple(found)


NO_WIDTH = {
    "other kinds alone": {"d": DEEP, "k": KERNEL},
    "one option": {"a": ((4,), "width"), "d": DEEP},
    "text": {"a": (("small", "large"), "width")},
    "a switch": {"a": ((False, True), "width")},
    "nothing at all": {"a": ((0, 4), "width")},
}


@pytest.mark.parametrize("case", NO_WIDTH)
def test_a_space_without_widths_is_refused_by_name(case):
    space = Sizes(**NO_WIDTH[case]).space
    assert widths(space) == []
    kinds = ", ".join(sorted({d.kind for d in space.dimensions}))
    said = rf"bounds = from_cost cuts widths \(.*\), .* none to cut, only {kinds}; leave it out"
    with pytest.raises(SpaceError, match=said):
        clip(space, [])


def train(folder=None, **settings):
    return fit(mobilenet(), few_digits(), cost_range=(20e3, 30e3), folder=folder,
               settings=TrainSettings(**{**FROM_COST, **settings}))  # fmt: skip


def cut(model, limits=(20e3, 30e3)):
    return clip(model.space, [Budget(MACs(model), limits)])


def test_fixed_boundaries_stay_there_in_training_and_in_the_search():
    run = train(learn="none")
    expected = cut(run.model)
    assert expected.allowed != run.model.space.whole
    assert run.allowed == expected.allowed
    for boundary, policy in run.boundaries.items():
        assert policy.mode == expected.end(boundary)
        assert policy.probabilities.sum() == len(run.model.space), "always the same network"
    front = search(run, SEARCH)
    for network in (*front.networks, *front.outside):
        pairs = zip(network.arch.indices, expected.allowed, strict=True)
        assert all(index in options for index, options in pairs)


def test_fixed_boundaries_draw_networks_of_the_cut_space_only():
    whole, inside = (train(learn="none", bounds=bounds) for bounds in ("whole", "from_cost"))
    space, cost = inside.model.space, inside.costs[0]
    ends = {"max": cut(inside.model).end("max"), "min": cut(inside.model).end("min")}
    for row in inside.metrics:
        for boundary, end in ends.items():
            assert row[f"cost_{boundary}"] == {"macs": cost(end)}
    assert whole.metrics[0]["cost_max"] == {"macs": cost(space.largest)}


def test_learned_boundaries_start_there_and_may_leave():
    run = train(learn="both", steps=6, policy_learning_rate=0.5, start_std=0.01)
    for boundary, policy in run.boundaries.items():
        start = start_policy(run.model, boundary, run.settings, 0, run.budgets)
        assert start.mode == cut(run.model).end(boundary)
        assert (start.marginals > 0).sum() == sum(map(len, run.model.space.dimensions))
        assert not torch.equal(policy.logits, start.logits)


@pytest.mark.parametrize(("learn", "fixed"), [("min", "max"), ("max", "min")])
def test_the_boundary_that_is_not_learned_stays_there(learn, fixed):
    run = train(learn=learn)
    policy = getattr(run.boundaries, fixed)
    assert policy.mode == cut(run.model).end(fixed)
    assert not policy.learned


def test_a_prior_counts_over_the_cost_range():
    prior = (PriorSettings(dimensions="stem.width", smallest=2, largest=2),)
    model = mobilenet()
    settings = TrainSettings(**FROM_COST, prior=prior)
    budgets = [Budget(MACs(model), (20e3, 30e3))]
    for boundary in ("max", "min"):
        start = start_policy(model, boundary, settings, 0, budgets).mode.values
        expected = cut(model).end(boundary).values
        assert start == {**expected, "stem.width": 2}


def test_a_run_says_once_what_was_cut_and_keeps_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = train(tmp_path / "run", learn="none")
    record = run.clip.record
    dimensions = run.model.space.dimensions
    left = [o for o, d in zip(run.allowed, dimensions, strict=True) if d in widths(run.model.space)]
    assert record.left == sum(map(len, left))
    assert record.whole == sum(map(len, widths(run.model.space)))
    assert [r.message for r in caplog.records if "cost range" in r.message] == [record.said]
    said = f"the cost range cut all widths to {record.lower:.3g} to {record.upper:.3g} of the "
    assert record.said == f"{said}largest, {record.left} of their {record.whole} options"
