"""The search of a trained run: honest numbers, a true front, replay after a kill, its bounds."""

import json
import math
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.small import COST_RANGE, digest, trained

import boundnas
from boundnas import SearchSettings, calibrate, extract, search
from boundnas.cost import Budget, Cost, MACs, Parameters
from boundnas.data import batches, normalize
from boundnas.errors import RunError
from boundnas.method.policy import Boundaries, Policy
from boundnas.randomness import stream
from boundnas.search import Evaluation, Evaluator, Front
from boundnas.search import front as searching
from boundnas.search.genetic import genetic_search
from boundnas.search.networks import selected
from boundnas.search.screening import PILOTS, Sample
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.space.polynomial import amount
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl
from boundnas.store.records import FrontRecord, lies_inside

SETTINGS = SearchSettings(
    initial=10, rounds=3, crossovers=4, mutations=4, calibration_images=200, batch_size=64
)


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(trained().model, trained().data, SETTINGS, seed=0)


@pytest.fixture
def run(tmp_path):
    """The trained run in a folder of its own."""
    return replace(trained(), folder=RunFolder.create(tmp_path / "run", "name: run\n"))


@pytest.fixture(scope="module")
def front():
    return search(trained(), SETTINGS)


@pytest.fixture
def measured(monkeypatch):
    """Every evaluation made within the test, in order."""
    made, evaluation = [], Evaluator._evaluation

    def noted(self, arch, judged):
        made.append(evaluation(self, arch, judged))
        return made[-1]

    monkeypatch.setattr(Evaluator, "_evaluation", noted)
    return made


def accuracy_by_hand(net, source, data):
    """Part of the images that a plain network gets right, one batch of 64 after another."""
    correct = 0
    for start in range(0, len(source), 64):
        positions = torch.arange(start, min(start + 64, len(source)))
        images, labels = source.take(positions)
        with torch.no_grad():
            correct += int((net(normalize(images, data.mean, data.std)).argmax(1) == labels).sum())
    return correct / len(source)


def architectures(space):
    generator = stream(0, "test")
    return [space.largest, space.smallest, *(space.sample(generator) for _ in range(3))]


@pytest.mark.parametrize("number", range(5))
def test_an_evaluation_is_the_accuracy_of_the_extracted_network(number, evaluator):
    model, data = evaluator.model, evaluator.data
    arch = architectures(model.space)[number]
    evaluation = evaluator(arch)
    calibrated = evaluator.calibrated(arch)
    net = extract(model, calibrated)
    assert evaluation.architecture == arch
    assert evaluation.score == accuracy_by_hand(net, data.validation, data)
    assert evaluator.score(calibrated, data.test) == accuracy_by_hand(net, data.test, data)
    assert evaluation.costs["parameters"] == sum(p.numel() for p in net.parameters())


def test_statistics_are_means_over_equal_batches_of_training_images(evaluator):
    model, data = evaluator.model, evaluator.data
    order = torch.randperm(len(data.train), generator=stream(0, "calibration"))
    means = []
    for start in (0, 64, 128):  # 200 images hold three full batches
        images, _ = data.train.take(order[start : start + 64])
        with torch.no_grad():
            y = model.stem.conv(normalize(images, data.mean, data.std), model.space.largest)
        means.append((y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)))
    mean, var = evaluator.calibrated(model.space.largest).carried.statistics.moments["stem.norm"]
    torch.testing.assert_close(mean, torch.stack([m for m, _ in means]).mean(0))
    torch.testing.assert_close(var, torch.stack([v for _, v in means]).mean(0))


def test_searching_changes_no_weight(evaluator):
    before = digest(evaluator.model)
    evaluator(evaluator.model.space.smallest)
    assert digest(evaluator.model) == before


def test_test_images_are_read_by_the_final_front_only(run, measured, monkeypatch):
    taken = []

    class Counted:
        def __init__(self, source):
            self.source = source

        def __len__(self):
            return len(self.source)

        def take(self, indices):
            taken.append((len(measured), len(indices)))
            return self.source.take(indices)

    data = replace(run.data, test=Counted(run.data.test))
    taken.clear()  # the data set checks itself by one image
    found = search(replace(run, data=data, folder=None), SETTINGS)  # which reads no digests
    assert {when for when, _ in taken} == {len(measured)}
    networks = len(found.networks) + len(found.outside)
    assert sum(images for _, images in taken) == networks * len(data.test)


def test_the_front_is_what_validation_selects_inside_the_range_and_outside(run, measured):
    found = search(run, SETTINGS)
    assert found.ranges == {"macs": COST_RANGE}
    points = {e.architecture: (e.costs["macs"], e.score) for e in measured}

    def undominated(among):
        return {
            a
            for a, (cost, accuracy) in among.items()
            if not any(c <= cost and v >= accuracy and (c, v) != (cost, accuracy)
                       for c, v in among.values())
        }  # fmt: skip

    inside = {a: p for a, p in points.items() if COST_RANGE[0] <= p[0] <= COST_RANGE[1]}
    assert {n.arch.plain for n in found.networks} <= undominated(inside)
    assert {n.arch.plain for n in found.outside} <= undominated(points) - inside.keys()
    for networks, all_of in ((found.networks, inside), (found.outside, points)):
        values = [(n.macs, n.validation) for n in networks]
        assert [v for v, _ in values] == sorted({v for v, _ in values})
        expected = {points[a] for a in undominated(all_of)}
        assert set(values) == {p for p in expected if all_of is inside or p not in inside.values()}
    assert found.networks
    assert found.outside


def test_accuracy_on_test_data_selects_nothing(run, monkeypatch):
    exact = search(run, SETTINGS)
    values = iter(range(1000))
    worse = lambda *_: (1 - next(values) / 1000, ())  # noqa: E731
    monkeypatch.setattr(Evaluator, "tested", worse)
    found = search(run, SETTINGS)
    for name in ("networks", "outside"):
        chosen = [[n.arch.plain for n in getattr(f, name)] for f in (exact, found)]
        assert chosen[0] == chosen[1]
    best = found.best()
    assert best.arch == exact.best().arch
    assert best.test == min(n.test for n in found.networks)


EVALUATED = {  # MACs and validation accuracy by name
    "cheaper": (5, 0.9), "cheapest": (2, 0.3), "hidden": (10, 0.5), "beaten": (12, 0.4),
    "better": (20, 0.95), "at the end": (30, 0.96), "dearer": (31, 0.97), "lost": (40, 0.97),
}  # fmt: skip
SELECTED = [
    ((10, 30), ["hidden", "better", "at the end"], ["cheapest", "cheaper", "dearer"]),
    ((11, 29), ["beaten", "better"], ["cheapest", "cheaper", "at the end", "dearer"]),
    ((6, 9), [], ["cheapest", "cheaper", "better", "at the end", "dearer"]),
    ((1, 100), ["cheapest", "cheaper", "better", "at the end", "dearer"], []),
]


@pytest.mark.parametrize(("cost_range", "inside", "outside"), SELECTED)
def test_a_cheaper_network_outside_the_range_hides_none_inside(cost_range, inside, outside):
    space = SearchSpace([Dimension("number", tuple(range(len(EVALUATED))))])
    named = dict(zip(EVALUATED, map(partial(Architecture, space), zip(range(8))), strict=True))
    evaluations = [
        Evaluation(named[name], {"macs": macs, "parameters": 1}, accuracy, 9)
        for name, (macs, accuracy) in EVALUATED.items()
    ]
    found = selected(evaluations, {"macs": cost_range})
    wanted = sorted([*inside, *outside], key=lambda name: EVALUATED[name][0])
    assert [e.architecture for e in found] == [named[name] for name in wanted]
    kept = [lies_inside(e.costs, {"macs": cost_range}) for e in found]
    assert sum(kept) == len(inside)


def test_a_front_with_nothing_inside_says_so_and_names_the_nearest(front):
    nothing = Front({"macs": (1000, 5000)}, (), (*front.networks, *front.outside))
    cheapest = min(n.macs for n in nothing.outside)
    said = (
        rf"lies inside the range asked for, 1,000 to 5,000 macs; the nearest .* {cheapest:,} macs"
    )
    with pytest.raises(RunError, match=said):
        nothing.best()
    with pytest.raises(RunError, match=said):
        nothing.best(macs=1e9)


def test_the_best_lies_inside_the_range_even_where_one_outside_is_better(front):
    inside, outside = front.networks[:1], front.networks[1:]
    narrow = Front({"macs": (1, inside[0].macs)}, inside, outside)
    assert outside[-1].validation > inside[0].validation
    assert narrow.best() is narrow.best(macs=1e9) is inside[0]


def test_the_front_reports_what_its_networks_measure(front, evaluator):
    data = evaluator.data
    for n in [*front.networks, *front.outside]:
        net = extract(evaluator.model, n.arch)
        assert n.macs == evaluator.costs["macs"](n.arch)
        assert n.parameters == sum(p.numel() for p in net.parameters())
        assert n.validation == accuracy_by_hand(net, data.validation, data)
        assert n.test == accuracy_by_hand(net, data.test, data)


def test_best_is_the_most_accurate_network_within_the_budget(front):
    for i, network in enumerate(front.networks):
        assert front.best(macs=network.macs) is network
        assert front.best(macs=network.macs + 0.5, parameters=10**6) is network
        if i:
            assert front.best(macs=network.macs - 1) is front.networks[i - 1]
    assert front.best() is front.networks[-1]


@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        ({"macs": 9.9e3}, "9,900 macs"),
        ({"parameters": 100}, "100 parameters"),
        ({"macs": 1, "parameters": 1e6}, "1 macs and 1,000,000 parameters"),
    ],
)
def test_a_budget_below_the_front_names_its_smallest_network(front, budget, asked):
    smallest = front.networks[0].macs
    with pytest.raises(RunError, match=f"has at most {asked}; the smallest has {smallest:,} macs"):
        front.best(**budget)


def test_the_front_as_json_names_every_network_and_its_folder(front):
    held = json.loads(json.dumps(front.to_json()))
    assert held["ranges"] == {"macs": list(COST_RANGE)}
    assert [n["folder"] for n in held["networks"]] == [f"networks/{n.macs}" for n in front.networks]
    for key in ("networks", "outside"):
        for row, network in zip(held[key], getattr(front, key), strict=True):
            assert network.arch.space.architecture(row["architecture"]) == network.arch
            assert row["test"] == network.test


def evaluations_in(path):
    """What a journal holds below its first line, without the sums."""
    return [{k: v for k, v in row.items() if k != "sum"} for row in read_jsonl(path)[1:]]


def test_the_report_reads_every_front(front):
    # Networks outside the range have no folder; the report once refused such.
    origin = {"identity": {"weights": "of the run"}, "journal": "its last"}
    read = FrontRecord.model_validate_json(json.dumps(origin | front.to_json()))
    assert [n.folder for n in read.networks] == [front.folder(n) for n in front.networks]
    assert [n.folder for n in read.outside] == [None] * len(front.outside)


def test_a_search_is_the_same_with_and_without_a_folder(run, front):
    assert search(run, SETTINGS).to_json() == front.to_json()


SCREENING = SETTINGS.model_copy(update={"screen": 0.25})


def test_a_screened_network_is_estimated_from_its_answers_to_the_sample(evaluator):
    data, space = evaluator.data, evaluator.model.space
    pilots = torch.stack([evaluator.validated(space.sample(stream(s, "pilots"))) for s in range(8)])
    sample = Sample.draw(pilots, 20, stream(0, "sample"))
    for arch in architectures(space):
        found = evaluator.screened(arch, sample)
        images = [i for i, _ in batches(data.train, calibration_positions(evaluator, 64), 64)]
        calibrated = calibrate(
            evaluator.model, arch, [normalize(i, data.mean, data.std) for i in images]
        )
        correct = evaluator.scores(calibrated, data.validation, sample.images)
        assert found.score == sample.score(correct)
        assert found.images == len(sample.images) == 20


def calibration_positions(evaluator, count):
    order = torch.randperm(len(evaluator.data.train), generator=stream(0, "calibration"))
    return order[:count]


def test_a_search_that_screens_reports_exact_accuracies(run, monkeypatch):
    calls = []

    def counting(measure):
        def measured(self, arch, *args):
            calls.append(arch)
            return measure(self, arch, *args)

        return measured

    for name in ("judged", "screened"):
        monkeypatch.setattr(Evaluator, name, counting(getattr(Evaluator, name)))
    whole = search(run, SCREENING)
    rows = evaluations_in(run.folder.evaluations)
    assert len(rows) >= 30
    data, pilots = run.data, rows[:PILOTS]
    assert [e["architecture"] for e in pilots[:2]] == [
        run.boundaries.max.mode.values,
        run.boundaries.min.mode.values,
    ]
    assert {row["images"] for row in pilots} == {len(data.validation)}
    assert {row["images"] for row in rows[PILOTS:]} == {math.ceil(0.25 * len(data.validation))}
    finalists = evaluations_in(run.folder.finalists)
    assert 0 < len(finalists) < len(rows)
    assert len(calls) == len(rows) - PILOTS + len(finalists)
    assert {row["images"] for row in finalists} == {len(data.validation)}
    for n in whole.networks:
        net = extract(run.model, n.arch)
        assert n.validation == accuracy_by_hand(net, data.validation, data)


def test_a_finished_search_measures_nothing_again(run, measured):
    search(run, SETTINGS)
    count = len(measured)
    search(run, SETTINGS)
    assert len(measured) == count == len(evaluations_in(run.folder.evaluations))


def test_a_torn_last_line_of_the_journal_is_measured_again(run, measured, front):
    search(run, SETTINGS)
    count, journal = len(measured), run.folder.evaluations
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    assert search(run, SETTINGS).to_json() == front.to_json()
    assert len(measured) == count + 1
    assert journal.read_bytes() == whole


PINNED = {"stem.width": 4, "stage1.output": 4, "stage1.depth": 2, "stage1.kernel": 3}


def pinned(run):
    """The run with boundaries that leave one option of some dimensions, and all of the others."""
    space = run.model.space
    policies = []
    for free in (-1, 0):
        logits = torch.full((len(space), max(map(len, space.dimensions))), -1.0)
        for row, d in zip(logits, space.dimensions, strict=True):
            row[d.index(PINNED[d.name]) if d.name in PINNED else range(len(d))[free]] = 1.0
        policies.append(Policy(space, logits))
    return replace(run, boundaries=Boundaries(*policies))


def test_a_search_stays_within_the_learned_bounds(run, measured):
    run = pinned(run)
    search(run, SETTINGS.model_copy(update={"initial": 100}))
    assert {e.architecture for e in measured[:2]} == {
        run.boundaries.max.mode,
        run.boundaries.min.mode,
    }
    assert len(measured) == 2 ** (len(run.model.space) - len(PINNED))  # all there is
    for e in measured:
        assert PINNED.items() <= e.architecture.values.items()
        assert all(
            i in options for i, options in zip(e.architecture.indices, run.allowed, strict=True)
        )


def test_a_search_of_the_whole_space_ignores_the_learned_bounds(run, measured):
    run = pinned(run)
    search(run, SETTINGS.model_copy(update={"bounds": "whole"}))
    found = [e.architecture for e in measured]
    assert found[:2] == [run.model.space.largest, run.model.space.smallest]
    for d in run.model.space.dimensions:
        assert {arch[d] for arch in found} == set(d.choices)


class Energy(Cost):
    """A few millijoules: smaller where the network has more MACs."""

    name, unit = "energy", "mJ"

    def _polynomial(self, model):
        depth, width = (
            next(d for d in model.space.dimensions if d.name == name)
            for name in ("stage1.depth", "stem.width")
        )
        return 2 * amount(depth) + amount(width, lambda w: 8 - int(w)) + 1


def test_a_cost_of_ones_own_orders_the_front_and_limits_what_is_best(run):
    energy = Energy(run.model)
    run = replace(run, budgets=(Budget(energy, energy.reach),))
    for settings in (SETTINGS, SETTINGS.model_copy(update={"screen": 0.5})):
        front = search(run, settings)
        assert front.ranges == {"energy": energy.reach}
        for n in [*front.networks, *front.outside]:
            assert n.costs == {
                "macs": MACs(run.model)(n.arch),
                "parameters": Parameters(run.model)(n.arch),
                "energy": energy(n.arch),
            }
        counts = [n.costs["energy"] for n in front.networks]
        assert counts == sorted(set(counts))
        assert [front.folder(n) for n in front.networks] == [f"networks/{c}" for c in counts]
        assert front.best(energy=counts[0]) is front.networks[0]
        held = front.to_json()
        assert held["networks"][0]["costs"]["energy"] == counts[0]
        with pytest.raises(RunError, match=r"at most 2 energy; .* and \d energy"):
            front.best(energy=2)
        with pytest.raises(RunError, match="no cost power; it has macs, parameters, energy"):
            front.best(power=2)


def test_a_run_for_parameters_gives_a_front_of_parameters(run):
    cost = Parameters(run.model)
    run = replace(run, budgets=(Budget(cost, cost.reach),))
    found = search(run, SETTINGS)
    assert found.ranges == {"parameters": cost.reach}
    counts = [n.parameters for n in found.networks]
    assert counts == sorted(set(counts))
    assert [found.folder(n) for n in found.networks] == [f"networks/{c}" for c in counts]
    assert found.best(parameters=counts[0]) is found.networks[0]


PAGE = Path(__file__).parents[1] / "docs" / "how-it-works.md"
NO_ROOMS = (
    "errors",
    "extras",
    "nested",
    "randomness",
    "space/",
    "store/",
    "typed",
    "search/pareto.py",
)
"""What a candidate is made of, is written as or checked by, and what looks at all of them."""
PARTS = ("supernet/inputs.py", "supernet/modes.py", "supernet/trail.py", "supernet/weights.py")


def room(file):
    """The room that a file of the package is, or is part of."""
    if file.startswith(("elastic/", "models/")) or file in PARTS:
        return "supernet/supernet.py"  # the model
    return next((f"{name}/" for name in ("cost", "data") if file.startswith(f"{name}/")), file)


def entered(folder):
    """The rooms in which something is done while candidates are drawn and measured."""
    found, root = set(), f"{Path(boundnas.__file__).parent}/"

    def told(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(root):
            found.add(file.removeprefix(root))

    def followed(bench, **options):
        sys.setprofile(told)
        try:
            return genetic_search(bench, **options)
        finally:
            sys.setprofile(None)

    few = SETTINGS.model_copy(update={"initial": 4, "rounds": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "genetic_search", followed)
        search(replace(trained(), folder=folder), few, [boundnas.Observer()])
    return {room(file) for file in found if not file.startswith(NO_ROOMS)}


def test_the_docs_name_all_rooms_that_a_candidate_of_the_search_passes(tmp_path):
    section = PAGE.read_text().split("**A candidate of the search**")[1]
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+\.py|/|\.py))`", section)) - {"sampled.py"}
    assert entered(RunFolder.create(tmp_path / "run", "")) == named
    assert len(named) == 16
    assert "enters sixteen in all" in section
