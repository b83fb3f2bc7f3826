"""What the report and the cards of a run by latency say of its table and of its networks."""

import json
import re
import shutil

import pytest
from tests.reliability.tiny import text
from tests.test_front_latency import made_up
from tests.times import table_of
from typer.testing import CliRunner

import boundnas as bn
from boundnas.app import budget, pipeline
from boundnas.app.cli import app
from boundnas.config import read_config
from boundnas.cost import Latency, LatencyTable
from boundnas.cost.table import Held, Validation
from boundnas.deploy import timing
from boundnas.deploy.card import latency_rows
from boundnas.engine.machine import cpu_model, installed
from boundnas.errors import RunError
from boundnas.report import write_report
from boundnas.report.compare import compare
from boundnas.report.markup import markdown
from boundnas.store.files import write_json
from boundnas.store.folder import RunFolder
from boundnas.store.times import LatencyRecord

VERSION = installed("torch")
COST = "cost: {metric: latency, table: table.json, lower: LOWER, upper: UPPER}"


def config(folder, lower, upper):
    path = folder / "run.yaml"
    cost = COST.replace("LOWER", str(lower)).replace("UPPER", str(upper))
    path.write_text(re.sub(r"cost: .*", cost, text("pt2")))
    return read_config(path)


def held(predicted):
    """Networks of which one more in ten is off by a third; the fourth has known quartiles."""
    return Validation(
        networks=tuple(
            Held(predicted=n * (1_500_000 if n <= predicted else 1_000_000), measured=n * 10**6,
                 macs=n, by_macs=n * 10**6, quartiles=(3_500_000, 5 * 10**6) if n == 4 else None)
            for n in range(1, 11)
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a table, a configuration and a run of it that is whole."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "macs.yaml").write_text(text())
    model = pipeline.Job.prepare(read_config(folder / "macs.yaml")).model
    table = table_of(model, runtime="torch", runtime_version=VERSION, threads=2, validation=held(1))
    write_json(folder / "table.json", table.written())
    least, most = Latency(model, table).reach
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(timing, "whole", made_up)
        pipeline.run(config(folder, least / 1e6, most / 1.1e6), folder)
    return folder


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """A copy of it, which is worked in; the run folder."""
    folder = shutil.copytree(world, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return RunFolder.open(folder / "tiny")


def test_networks_are_found_by_their_milliseconds_and_timed_as_the_table_was(run):
    found = json.loads(run.front.read_text())
    lower, upper = found["ranges"]["latency"]
    assert found["networks"]
    for n in found["networks"]:
        assert lower <= n["costs"]["latency"] <= upper
        assert n["folder"] == f"networks/{n['costs']['latency']}"
        times = json.loads((run.path / n["folder"] / "latency.json").read_text())
        assert (times["runtime"], times["threads"]) == ("torch", 2)
        card = (run.path / n["folder"] / "card.md").read_text()
        assert f"| Latency, predicted | {n['costs']['latency'] / 1e6:.4g} ms |\n" in card
        assert f"| Predicted by a table | torch {VERSION}, 2 threads, 1 sample a pass, " in card
        assert "Take care" not in card


def section(run):
    page = write_report(run.path).read_text()
    return re.search(r'<section id="latency">.*?</section>', page, re.DOTALL)[0]


def test_the_report_says_what_the_table_is_worth_and_draws_it(run):
    found = section(run)
    assert f"Predicted by a table: torch {VERSION}, 2 threads, 1 sample a pass, " in found
    assert "Of 10 networks that it was not fitted to, 90% were predicted to within 10%" in found
    assert "the mean error is 5.0%" in found
    assert "Rank correlation of predicted and measured times: 1.000; of MACs and" in found
    assert found.count("<circle ") == 10
    assert "<title>2 ms measured, 2 predicted</title>" in found
    (line,) = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="\2" ', found)
    left, height, right = map(float, line)
    places = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', found)
    third, fourth, fifth = (tuple(map(float, place)) for place in places[2:5])
    assert (height, right) == (fourth[1], fifth[0])
    assert left == pytest.approx((third[0] + fourth[0]) / 2, abs=0.1)
    assert "Take care" not in found
    assert "Predicted, ms" in found
    assert "<td>1.5</td>" in found


MISSED = (
    "its predictions are worth less than they should be: rank correlation 0.927 (at least 0.95), "
    "mean error 45.0% (at most 10%); measure it again, for longer, on a quiet machine"
)
DOUBTS = {  # what is in the table, what is said of it, and whether it is where networks were timed
    "missed": ({"validation": held(9).model_dump(mode="json")}, MISSED, False),
    "not known": (
        {"validation": None},
        "its predictions were not compared with networks that were timed whole",
        False,
    ),
    "another machine": (
        {"machine": {"cpu": "Abacus"}},
        f"it was measured with cpu Abacus, the networks with {cpu_model()}; its predictions are "
        "for that machine",
        True,
    ),
    "another version": (
        {"runtime_version": "1"},
        f"it was measured with torch 1, the networks with {VERSION}; its predictions are for that "
        "machine",
        True,
    ),
}


@pytest.fixture(params=DOUBTS)
def doubtful(request, run):
    """A run whose table is not what should be relied on; what is said of it, where it was timed."""
    change, said, there = DOUBTS[request.param]
    table = {**json.loads(run.latency.read_text()), **change}
    write_json(run.latency, table)
    return run, said, there


def test_the_report_warns_of_a_table_that_should_not_be_relied_on(doubtful):
    run, said, _ = doubtful
    found = section(run)
    assert found.count('<p class="warning note">') == 1
    assert f'<p class="warning note">Take care: {said}.</p>' in found
    assert ("<circle" in found) == ("not compared" not in said)


def test_the_card_of_a_network_warns_of_it(doubtful):
    run, said, _ = doubtful
    network = json.loads(run.front.read_text())["networks"][0]
    times = LatencyRecord.model_validate_json(
        (run.path / network["folder"] / "latency.json").read_text()
    )
    table = LatencyTable.read(run.latency)
    rows = list(latency_rows(network["costs"], times, table))
    assert [name for name, _ in rows] == [
        "Latency, predicted", "Predicted by a table", "Take care", "Latency, measured",
        "Measured in",
    ]  # fmt: skip
    assert rows[1] == ("Predicted by a table", markdown(table.where))
    assert rows[2] == ("Take care", markdown(said))
    assert "Take care" not in dict(latency_rows({"macs": 1}, times, table)), "nothing is predicted"


def test_best_warns_of_it(doubtful):
    run, said, there = doubtful
    found = re.findall(r"^take care +(.*)$", budget.best(run.path, {"latency": 1e9}), re.M)
    said = said.replace("the networks with", "here") if there else said
    assert found == [f"latency.json: {said}"]


NOT_KEPT = "what predictions are worth is not known, as their table is not kept with this run"


def test_predictions_of_a_table_that_is_not_the_runs_are_not_said_to_be_of_it(run, tmp_path):
    table = json.loads(run.latency.read_text())
    write_json(run.latency, {**table, "offset": table["offset"] + 1})
    found = section(run)
    assert f'<p class="warning note">Take care: {NOT_KEPT}.</p>' in found
    assert "Predicted by a table" not in found
    assert "<circle" not in found
    assert f"take care            latency.json: {NOT_KEPT}\n" in budget.best(run.path, {})
    compare([run.path], tmp_path / "out")
    assert f"Take care: {NOT_KEPT}." in (tmp_path / "out/comparison.md").read_text()
    rows = list(latency_rows({"latency": 1}, None, None))
    assert rows[1:] == [("Take care", NOT_KEPT)]


def test_cards_are_given_the_table_that_the_front_was_found_by_or_none(run, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "whole", made_up)
    held = bn.open(run.path)
    cost = held.costs[0]
    other = Latency(held.model, cost.table.model_copy(update={"offset": 99}))
    for each, there in ((cost, True), (other, False)):
        front = bn.search(held, cost=each, cost_range=each.reach, settings=held.searching)
        (place, *_) = bn.export_front(held, front, ["pt2"], latency=False)
        card = (place / "card.md").read_text()
        assert ("Predicted by a table" in card, NOT_KEPT in card) == (there, not there)


def test_best_says_nothing_of_a_table_that_can_be_relied_on(run):
    assert "take care" not in budget.best(run.path, {})


def test_a_comparison_by_latency_warns_of_it(doubtful, tmp_path):
    run, said, there = doubtful
    compare([run.path], tmp_path / "out")
    compare([tmp_path / "out/comparison.json"], tmp_path / "again")
    for folder in ("out", "again"):
        page = (tmp_path / folder / "comparison.md").read_text()
        line = markdown(f"Latency of all: Take care: {said}.")
        assert page.count("Take care") == page.count(f"\n\n{line}\n\n") == (not there)


def test_runs_whose_milliseconds_are_of_two_places_are_compared_with_a_warning(run, tmp_path):
    other = shutil.copytree(run.path, tmp_path / "other")
    table = {**json.loads(run.latency.read_text()), "threads": 1}
    write_json(other / "latency.json", table)
    config = (other / "config.yaml").read_text()
    digest = read_config(other / "config.yaml").cost[0].table.digest
    (other / "config.yaml").write_text(
        re.sub(r"latency\.json  # \w+", f"latency.json  # {digest}", config)
    )
    found = (compare([run.path, other], tmp_path / "out") / "comparison.md").read_text()
    ends = f"1 sample a pass, {cpu_model()}"
    said = (
        "Take care: the milliseconds of these runs are not the same, as they were predicted by "
        f"tables of torch {VERSION}, 2 threads, {ends} and of torch {VERSION}, 1 thread, {ends}."
    )
    assert found.count("Take care") == found.count(f"\n\n{markdown(said)}\n\n") == 1


def test_a_search_says_below_the_front_what_its_milliseconds_are_worth(doubtful):
    run, said, there = doubtful
    found = CliRunner().invoke(app, ["search", str(run.path)], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    ends = "" if there else f"Take care: {said}.\n"
    assert found.stdout.rpartition("┘\n")[2] == ends


def test_a_damaged_table_is_named(run):
    run.latency.write_text('{"schema_version": 2}')
    with pytest.raises(RunError, match=r"latency\.json: schema_version: "):
        write_report(run.path)
