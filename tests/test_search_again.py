"""A trained supernet is searched again for another range or cost, without training anew."""

import json
from itertools import product

import pytest
from tests.small import COST_RANGE, digest, few_digits, files, mobilenet
from tests.spaces import seeded
from tests.test_recipe import Net

import boundnas as bn
from boundnas.cost import MACs, Parameters
from boundnas.errors import CostError
from boundnas.report import write_report
from boundnas.report.content import figures
from boundnas.report.records import read_run

PRIOR = [{"dimensions": "stage1.depth", "smallest": 2}]
TRAIN = bn.TrainSettings(steps=3, batch_size=16, prior=PRIOR, policy_learning_rate=1e-6)
SEARCH = bn.SearchSettings(initial=12, rounds=1, crossovers=3, mutations=3, calibration_images=64)
WHOLE = SEARCH.model_copy(update={"bounds": "whole"})
NARROW = (22e3, 35e3)


def trained(folder=None, **more):
    given = {"cost_range": COST_RANGE, "settings": TRAIN, "folder": folder, **more}
    return bn.fit(mobilenet(), few_digits(), **given)


@pytest.fixture(scope="module")
def run():
    """A run in memory; not to be changed."""
    return trained()


def costs_of(front):
    return [n.costs for n in (*front.networks, *front.outside)]


def test_another_range_selects_anew_and_measures_nothing_twice(tmp_path):
    run = trained(tmp_path / "run")
    bn.search(run, SEARCH)
    first, weights = files(run.folder.path), digest(run.model)
    front = bn.search(run, SEARCH, cost_range=NARROW)
    now = files(run.folder.path)
    assert front.ranges == {"macs": NARROW}
    assert front.networks
    assert all(NARROW[0] <= n.macs <= NARROW[1] for n in front.networks)
    assert not any(NARROW[0] <= n.macs <= NARROW[1] for n in front.outside)
    assert now["front-1.json"] == first["front.json"]
    assert json.loads(now["front.json"])["ranges"] == {"macs": list(NARROW)}
    assert now["search/evaluations.jsonl"] == first["search/evaluations.jsonl"]
    assert run.ranges == {"macs": COST_RANGE}
    assert digest(run.model) == weights
    bn.search(run, SEARCH)
    assert files(run.folder.path)["front.json"] == first["front.json"]
    assert files(run.folder.path)["front-2.json"] == now["front.json"]


def test_another_cost_is_searched_for_and_the_journal_of_the_first_is_kept(tmp_path):
    run = trained(tmp_path / "run")
    bn.search(run, SEARCH)
    first = files(run.folder.path)
    front = bn.search(run, SEARCH, cost=Parameters(run.model), cost_range=(700, 1100))
    now = files(run.folder.path)
    assert front.ranges == {"parameters": (700.0, 1100.0)}
    inside = [700 <= c["parameters"] <= 1100 for c in costs_of(front)]
    assert inside == [True] * len(front.networks) + [False] * len(front.outside)
    assert now["front-1.json"] == first["front.json"]
    assert now["search/evaluations-1.jsonl"] == first["search/evaluations.jsonl"]
    write_report(run.folder.path)
    drawn = figures(read_run(run.folder.path))
    shown = {cost["name"]: cost["range"] for cost in drawn["costs"]}
    assert shown == {"parameters": (700.0, 1100.0), "macs": None}
    assert drawn["training"]["ranges"] == {"macs": COST_RANGE}, "what it was trained for"


def test_several_costs_are_searched_for_after_a_training_for_one(run):
    front = bn.search(run, SEARCH, cost=[MACs(run.model), Parameters(run.model)],
                      cost_range=[NARROW, (700, 1100)])  # fmt: skip
    assert list(front.ranges) == ["macs", "parameters"]
    assert len(front.networks) > 0


def test_a_run_of_several_costs_is_searched_for_other_ranges_of_them():
    model = mobilenet()
    given = {"cost": [MACs(model), Parameters(model)], "cost_range": [COST_RANGE, (500, 1100)]}
    run = bn.fit(model, few_digits(), settings=TRAIN, **given)
    front = bn.search(run, SEARCH, cost_range=[NARROW, (700, 1100)])
    assert front.ranges == {"macs": NARROW, "parameters": (700.0, 1100.0)}


def between(run):
    """Costs of all networks between the boundaries, or at their ends."""
    ends = run.boundaries.max.mode, run.boundaries.min.mode
    options = [
        {*allowed, a, b}
        for allowed, a, b in zip(run.allowed, *(end.indices for end in ends), strict=True)
    ]
    space = run.model.space
    return sorted(run.costs[0](bn.Architecture(space, chosen)) for chosen in product(*options))


def test_a_range_that_the_boundaries_leave_no_network_of_is_refused(run):
    found = between(run)
    assert run.costs[0].reach[0] < found[0], "the prior keeps the smallest networks out"
    few = SEARCH.model_copy(update={"initial": 2, "rounds": 0})
    bn.search(run, few, cost_range=(1, found[0]))
    below = {"cost_range": (1, found[0] - 1)}
    said = f"between the learned boundaries .* from {found[0]:,} to {found[-1]:,}; search the whole"
    with pytest.raises(CostError, match=said):
        bn.search(run, SEARCH, **below)
    assert bn.search(run, WHOLE, **below).networks, "the whole space has some"


REFUSED = {
    "no range": ({"cost": MACs}, "found cost without cost_range"),
    "out of reach": ({"cost_range": (1e9, 2e9)}, "no network of this space costs"),
    "not ascending": ({"cost_range": (4e4, 2e4)}, "0 < lower < upper"),
    "a range too many": ({"cost_range": [NARROW, NARROW]}, "each cost has a range"),
    "another model's": (
        {"cost": lambda _: MACs(seeded(Net)), "cost_range": NARROW},
        "is of another model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_for_is_refused_before_anything_is_measured(case, run, tmp_path):
    given, message = REFUSED[case]
    if "cost" in given:
        given = {**given, "cost": given["cost"](run.model)}

    class Told(bn.Observer):
        def candidate(self, evaluation):
            pytest.fail("measured")

    with pytest.raises(CostError, match=message):
        bn.search(run, SEARCH, [Told()], **given)
