"""A trained supernet is searched again: other ranges, costs, metrics, without training anew."""

import json
from itertools import product

import pytest
import torch
from sklearn import metrics
from tests.small import COST_RANGE, digest, few_digits, files, mobilenet
from tests.spaces import seeded
from tests.test_recipe import Net

import boundnas as bn
from boundnas.app import budget
from boundnas.cost import MACs, Parameters
from boundnas.errors import CostError, DataError, RunError, TaskError
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


class Top3(bn.tasks.Classification):
    """Cross-entropy, measured by whether the class is among the three that are likeliest."""

    metric = "top-3 accuracy"
    output = "the three largest are looked at"

    def score(self, outputs, targets):
        return (outputs.topk(3).indices == targets[:, None]).any(1).float()


class MacroF1:
    """As those of torchmetrics are written."""

    higher_is_better = True

    def __init__(self):
        self.answers, self.targets = [], []

    def update(self, outputs, targets):
        self.answers += outputs.argmax(1).tolist()
        self.targets += targets.tolist()

    def compute(self):
        return f1(self.answers, self.targets)


def f1(answers, targets):
    return float(metrics.f1_score(targets, answers, average="macro"))


def top3(outputs, targets):
    return metrics.top_k_accuracy_score(targets, outputs, k=3, labels=range(10))


SOFT = bn.tasks.Classification()
METRICS = {
    "a score of each sample": (Top3(), top3),
    "a metric over all": (
        bn.tasks.Own(SOFT.loss, SOFT.distance, metric=MacroF1()),
        lambda outputs, targets: f1(outputs.argmax(1), targets),
    ),
}


@pytest.mark.parametrize("kind", METRICS)
def test_another_metric_has_a_journal_and_a_front_of_its_own(kind, tmp_path):
    task, expected = METRICS[kind]
    run = trained(tmp_path / "run")
    bn.search(run, SEARCH)
    first, weights = files(run.folder.path), digest(run.model)
    front = bn.search(run, SEARCH, task=task)
    now = files(run.folder.path)
    assert digest(run.model) == weights
    assert now["front-1.json"] == first["front.json"]
    assert now["search/evaluations-1.jsonl"] == first["search/evaluations.jsonl"]
    assert (front.metric.name, front.task.metric) == (task.metric, task.metric)
    assert (
        json.loads(now["search/evaluations.jsonl"].splitlines()[0])["metric"]["name"] == task.metric
    )
    images, targets = run.data.test.take(torch.arange(len(run.data.test)))
    for network in front.networks:
        with torch.no_grad():
            outputs = bn.extract(run.model, network.arch)(
                run.data.ready(images, torch.device("cpu"))
            )
        assert network.test == pytest.approx(expected(outputs, targets), abs=1e-6)
    assert run.task.metric == "accuracy"
    bn.search(run, SEARCH)
    assert files(run.folder.path)["front.json"] == first["front.json"]


def test_report_card_and_best_name_the_metric_that_was_searched_by(tmp_path):
    validation = bn.Validation(3, between=0, settings=SEARCH)
    run = trained(tmp_path / "run", observers=[validation])
    few = SEARCH.model_copy(update={"initial": 3, "rounds": 0})
    front = bn.search(run, few, task=Top3())
    (place, *_) = bn.export_front(run, formats=["pt2"])
    page = write_report(run.folder.path).read_text()
    best = max(front.networks, key=lambda n: n.validation)
    assert f"reaches {best.metric.shown(best.validation)} there" in page
    drawn = figures(read_run(run.folder.path))
    assert (drawn["metric"]["name"], drawn["validation"]["metric"]["name"]) == (
        "top-3 accuracy",
        "accuracy",
    )
    shown = front.networks[0].metric.shown(front.networks[0].test)
    card = (place / "card.md").read_text()
    assert f"| Test top-3 accuracy | {shown} |" in card
    assert "the three largest are looked at" in card, "files are measured by this task too"
    assert "validation top-3 accuracy" in budget.best(run.folder.path, {})
    opened = bn.open(run.folder.path, model=mobilenet(), data=few_digits())
    with pytest.raises(RunError, match=r"was found with task = Top3 .*search the run again"):
        _ = opened.front
    assert bn.search(opened, few, task=Top3()).to_json() == front.to_json()


def rows(seed):
    """Numbers, and a target in thousands."""
    draw = torch.Generator().manual_seed(seed)
    return [(x, 5000 + 1000 * float(x.sum())) for x in torch.randn(60, 4, generator=draw)]


class Line(bn.Supernet):
    def __init__(self):
        super().__init__((4,))
        width = self.dimension("width", (2, 4, 8))
        self.hidden, self.head = bn.elastic.Linear(4, width), bn.elastic.Linear(width, 1)

    def forward(self, x, arch):
        return self.head(self.hidden(x, arch).relu(), arch)


def regression(**moments):
    data = bn.Data(rows(0), test=rows(1), name="rows")
    settings = bn.TrainSettings(steps=3, batch_size=16)
    return bn.fit(
        seeded(Line),
        data,
        cost_range=(10, 80),
        settings=settings,
        task=bn.tasks.Regression(**moments),
    )


ALONE = bn.SearchSettings(initial=3, rounds=0, calibration_images=16)


@pytest.mark.parametrize("moments", [{}, {"mean": (4000.0,), "std": (900.0,)}])
def test_another_error_of_numbers_is_in_the_units_that_outputs_were_trained_in(moments):
    run = regression(**moments)
    network = bn.search(run, ALONE, task=bn.tasks.Regression("MAE", mean=(0.0,), std=(1.0,)))
    network = network.networks[0]
    x, y = run.data.test.take(torch.arange(60))
    with torch.no_grad():
        found = run.task.answers(bn.extract(run.model, network.arch)(x))[:, 0]
    assert -network.test == pytest.approx(metrics.mean_absolute_error(y, found), rel=1e-5)
    assert network.metric.name == "MAE"


def error(outputs, targets):
    return (outputs[:, 0] - targets).abs()


MISFITS = {
    "other targets": (trained, bn.tasks.MultiLabel(), TaskError, "MultiLabel would take the same"),
    "other outputs": (
        regression,
        bn.tasks.Own(error, error, error, lower_is_better=True),
        TaskError,
        "answer as Regression trained them, standardized numbers.* as a subclass of Regression",
    ),
    "numbers of classes": (trained, bn.tasks.Regression(), TaskError, "the largest one is the cl"),
    "weights of other classes": (
        trained,
        bn.tasks.Classification(class_weights=(1, 1)),
        DataError,
        "there are 2 class_weights, and the model gives 10 logits",
    ),
    "no number": (
        trained,
        bn.tasks.Own(SOFT.loss, SOFT.distance, lambda outputs, targets: outputs.mean()),
        TaskError,
        "score",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_task_that_does_not_fit_is_refused_before_anything_is_measured(case):
    make, task, kind, message = MISFITS[case]

    class Told(bn.Observer):
        def candidate(self, evaluation):
            pytest.fail("measured")

    with pytest.raises(kind, match=message):
        bn.search(make(), SEARCH, [Told()], task=task)
