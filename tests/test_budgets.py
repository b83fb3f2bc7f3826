"""Several costs at once: a hinge for each, a front in all of them, best under several limits."""

import json

import pytest
import torch
from tests.small import COST_RANGE, digest, few_digits, mobilenet

from boundnas import SearchSettings, TrainSettings, fit, search
from boundnas.app import pipeline
from boundnas.config import RunConfig, read_config, write_config
from boundnas.cost import Budget, MACs, Parameters, check_budgets
from boundnas.errors import ConfigError, CostError, RunError
from boundnas.report import write_report
from boundnas.report.compare import compare
from boundnas.search import Evaluation, Front
from boundnas.search.networks import selected
from boundnas.search.pareto import mean_over_log_cost
from boundnas.store.lines import read_jsonl

RANGES = {"macs": COST_RANGE, "parameters": (500.0, 900.0)}
TRAIN = TrainSettings(steps=3, batch_size=16, start_std=1e-3, policy_learning_rate=0.1)
SEARCH = SearchSettings(initial=16, rounds=1, crossovers=4, mutations=4, calibration_images=64)


def both(model):
    return [MACs(model), Parameters(model)]


def train(cost=both, cost_range=(COST_RANGE, (500.0, 900.0))):
    model = mobilenet()
    return fit(model, few_digits(), cost=cost(model), cost_range=cost_range, settings=TRAIN)


@pytest.fixture(scope="module")
def run():
    return train()


@pytest.fixture(scope="module")
def front(run):
    return search(run, SEARCH)


def test_a_list_of_one_cost_trains_as_that_cost_does_bit_for_bit():
    one = train(lambda m: MACs(m), COST_RANGE)
    other = train(lambda m: [MACs(m)], [COST_RANGE])
    assert digest(one.model, one.boundaries.max) == digest(other.model, other.boundaries.max)
    assert one.metrics == other.metrics


def test_each_cost_has_a_hinge_with_its_own_range(run):
    for row in run.metrics:
        macs, parameters = (row["cost_max"][name] for name in RANGES)
        unused = max(0, 1 - macs / COST_RANGE[1]) + max(0, 1 - parameters / 900)
        assert row["penalty_max"] == pytest.approx(unused, rel=1e-6)
        macs, parameters = (row["cost_min"][name] for name in RANGES)
        excess = max(0, macs / COST_RANGE[0] - 1) + max(0, parameters / 500 - 1)
        assert row["penalty_min"] == pytest.approx(excess, rel=1e-6)
    assert {tuple(row["cost_max"]) for row in run.metrics} == {tuple(RANGES)}


def test_a_lower_limit_below_the_reach_counts_as_the_smallest_network():
    cost = Parameters(mobilenet())
    smallest, largest = cost.reach
    budget = Budget(cost, (1.0, largest / 2))
    gates = torch.tensor(float(smallest), dtype=torch.float64)
    assert float(budget.excess(gates)) == 0
    assert float(budget.excess(2 * gates)) == 1
    assert float(budget.unused(gates)) == 1 - smallest / (largest / 2)


def test_the_front_is_undominated_in_all_costs_inside_all_ranges_and_outside(run, front):
    inside, outside = front.networks, front.outside
    assert inside
    assert outside
    assert front.ranges == RANGES
    for n in inside:
        assert all(lower <= n.costs[name] <= upper for name, (lower, upper) in RANGES.items())
    for n in outside:
        assert any(not lower <= n.costs[name] <= upper for name, (lower, upper) in RANGES.items())
    for networks in (inside, outside):
        rows = [(n.macs, n.parameters, -n.validation) for n in networks]
        assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)
        for a in rows:
            assert not any(all(x <= y for x, y in zip(b, a, strict=True)) and a != b for b in rows)
    assert [front.folder(n) for n in inside] == [
        f"networks/{n.macs}-{n.parameters}" for n in inside
    ]


def test_a_network_that_is_dearer_in_one_cost_and_cheaper_in_another_is_kept():
    space = mobilenet().space
    rows = {(10, 90): 0.9, (20, 40): 0.9, (30, 30): 0.8, (15, 95): 0.85, (40, 20): 0.1}
    archs = iter(map(space.sample, [torch.Generator().manual_seed(i) for i in range(9)]))
    found = [
        Evaluation(next(archs), {"macs": m, "parameters": p}, score, 9)
        for (m, p), score in rows.items()
    ]
    kept = selected(found, {"macs": (10, 35), "parameters": (30, 92)})
    assert [tuple(e.costs.values()) for e in kept] == [(10, 90), (20, 40), (30, 30), (40, 20)]


def test_best_holds_every_limit(front):
    for limits in ({"macs": 30e3, "parameters": 800}, {"parameters": 700}, {}):
        within = [n for n in front.networks if all(n.costs[k] <= v for k, v in limits.items())]
        assert front.best(**limits).validation == max(n.validation for n in within)
    with pytest.raises(RunError, match="at most 30,000 macs and 1 parameters; the smallest has"):
        front.best(macs=30e3, parameters=1)


def test_a_front_with_nothing_inside_names_all_ranges(front):
    ranges = {"macs": (1.0, 2.0), "parameters": (1.0, 3.0)}
    nothing = Front(ranges, (), (*front.networks, *front.outside))
    with pytest.raises(RunError, match=r"1 to 2 macs and 1 to 3 parameters; .* macs and .* param"):
        nothing.best()


@pytest.mark.parametrize(
    ("cost", "cost_range", "said"),
    [
        (both, (1e3, 2e3), r"each cost has a range .*for macs, parameters"),
        (both, [COST_RANGE], r"each cost has a range .*for macs, parameters"),
        (lambda m: MACs(m), [COST_RANGE], r"each cost has a range .*for macs"),
        (lambda m: None, [COST_RANGE], r"each cost has a range .*for MACs"),
        (lambda m: [], [], r"each cost has a range .*for no cost"),
        (lambda m: [MACs(m)] * 2, [COST_RANGE] * 2, "several for one of macs, macs"),
        (both, [COST_RANGE, (1e6, 2e6)], "no network of this space costs 1 to 2 million param"),
    ],
)
def test_ranges_that_do_not_fit_the_costs_are_refused_before_training(cost, cost_range, said):
    with pytest.raises(CostError, match=said):
        train(cost, cost_range)


@pytest.mark.parametrize(("macs", "warned"), [((12e3, 40e3), False), ((40e3, 50e3), True)])
def test_ranges_that_exclude_one_another_are_warned_of(macs, warned, caplog):
    one, other = both(mobilenet())
    check_budgets([Budget(one, macs), Budget(other, (492, 600))])
    said = "no network inside all of the ranges of macs and parameters was found"
    assert (said in caplog.text) == warned


SPACE = {
    "last_width": 16,
    "stem": {"width": [2, 4], "stride": 1},
    "stages": [{"intermediate": [4, 8], "output": [2, 4], "stride": 2}],
}


def configuration(cost):
    return RunConfig(
        name="several",
        threads=1,
        space=SPACE,
        cost=cost,
        train={"steps": 2, "batch_size": 16},
        search={"initial": 8, "rounds": 0, "calibration_images": 64},
        export={"formats": []},
    )


MACS = {"metric": "macs", "lower": 0.002, "upper": 0.009}
PARAMETERS = {"metric": "parameters", "lower": 0.0002, "upper": 0.002}
MEMORY = {"metric": "peak_memory", "lower": 0.001, "upper": 0.006}


def test_a_configuration_takes_one_cost_or_a_list(tmp_path):
    for cost in (MACS, [MACS, PARAMETERS]):
        config = configuration(cost)
        path = tmp_path / "run.yaml"
        path.write_text(write_config(config))
        assert read_config(path) == config
    assert configuration(MACS) == configuration([MACS])
    assert "\n  - metric: parameters\n    lower: 0.0002" in path.read_text()
    with pytest.raises(ConfigError, match=r"cost +each cost stands once, found macs, macs"):
        configuration([MACS, MACS])
    with pytest.raises(ConfigError, match=r"cost +needs at least one entry, found an empty list"):
        configuration([])
    with pytest.raises(ConfigError, match=r"cost\[1\].upper +1 is not above cost\[1\].lower = 2"):
        configuration([MACS, PARAMETERS | {"lower": 2, "upper": 1}])


def test_limits_in_millions_are_those_that_are_written():
    """In binary 0.015627 million is less than 15,627, and 0.015626 million more than 15,626."""
    config = configuration(MACS | {"lower": 0.015626, "upper": 0.015627})
    (budget,) = pipeline.budgets_of(config, mobilenet(), None, {})
    assert budget.range == (15626, 15627)


@pytest.mark.parametrize(("second", "limits"), [(PARAMETERS, [200, 2000]), (MEMORY, [1000, 6000])])
def test_a_run_of_two_costs_goes_from_configuration_to_report(tmp_path, second, limits):
    name, config = second["metric"], configuration([MACS, second])
    folder, front = pipeline.run(config, tmp_path)
    held = json.loads(folder.front.read_text())
    assert held["ranges"] == {"macs": [2e3, 9e3], name: limits}
    assert pipeline.run(config, tmp_path)[1].to_json() == front.to_json()
    assert set(read_jsonl(folder.metrics)[0]["cost_min"]) == {"macs", name}
    page = write_report(folder.path).read_text()
    assert f'"{name}":{{"cost_max":' in page.replace(" ", "")
    best = front.best(macs=9e3, **{name: limits[1]})
    assert best.costs[name] <= limits[1]


def test_runs_of_two_costs_are_compared_along_each(tmp_path):
    runs = []
    for seed in (0, 1):
        config = configuration([MACS, PARAMETERS]).model_copy(update={"seed": seed})
        runs.append(pipeline.run(config.model_copy(update={"name": f"run{seed}"}), tmp_path)[0])
    out = compare([run.path for run in runs], tmp_path / "out")
    limits = {"macs": (2e3, 9e3), "parameters": (200, 2000)}
    for cost, other in (("macs", "parameters"), ("parameters", "macs")):
        held = json.loads((out / cost / "comparison.json").read_text())
        assert held["cost_range"] == list(limits[cost])
        assert held["others"] == {other: list(limits[other])}
        for seed, run in enumerate(runs):
            rows = within(json.loads(run.front.read_text()), cost, other, limits[other])
            found = held["groups"][0]["seeds"][str(seed)]
            assert found["front"] == rows
            assert found["score"] == mean_over_log_cost(*zip(*rows, strict=True), *limits[cost])
        again = compare([out / cost / "comparison.json"], tmp_path / f"again {cost}")
        for name in ("comparison.json", "fronts.svg"):
            assert (again / name).read_bytes() == (out / cost / name).read_bytes()
        label = {"macs": "MMACs", "parameters": "parameters"}[cost]
        assert f">{label}</text>" in (out / cost / "fronts.svg").read_text()
    tables = (out / "comparison.md").read_text()
    for text in (
        "Score, from 0.002 to 0.009 million: ",
        "Only networks of 200 to 2,000 parameters count.",
        "Score, from 200 to 2000 parameters: ",
        "Only networks of 2,000 to 9,000 macs count.",
        "](parameters/fronts.svg)",
    ):
        assert text in tables
    assert (out / "comparison.html").read_text().count("<svg") == 2 * len([*out.glob("macs/*.svg")])


def within(front, cost, other, limits):
    """Cost and scores of the networks of a front that are inside the range of another cost."""
    return [
        [n["costs"][cost], n["validation"], n["test"]]
        for n in front["networks"] + front["outside"]
        if limits[0] <= n["costs"][other] <= limits[1]
    ]


def test_runs_without_a_network_inside_the_other_range_are_not_compared(tmp_path):
    between = {"metric": "parameters", "lower": 0.0004002, "upper": 0.0004008}
    folder, _ = pipeline.run(configuration([MACS, between]), tmp_path)
    with pytest.raises(RunError, match=r"inside 400.2 to 400.8 parameters, .* compare by macs"):
        compare([folder.path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
