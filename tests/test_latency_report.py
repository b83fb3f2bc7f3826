"""What the report and the cards of a run by latency say of its table and of its networks."""

import json
import re
import shutil

import pytest
from tests.reliability.tiny import text
from tests.test_front_latency import made_up
from tests.times import table_of

from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.cost import Latency
from boundnas.cost.table import Held, Validation
from boundnas.deploy import timing
from boundnas.errors import RunError
from boundnas.report import write_report
from boundnas.store.files import write_json
from boundnas.store.folder import RunFolder

COST = "cost: {metric: latency, table: table.json, lower: LOWER, upper: UPPER}"


def config(folder, lower, upper):
    path = folder / "run.yaml"
    cost = COST.replace("LOWER", str(lower)).replace("UPPER", str(upper))
    path.write_text(re.sub(r"cost: .*", cost, text("pt2")))
    return read_config(path)


def held(predicted):
    """Networks of which one more in ten is off by a third."""
    return Validation(
        networks=tuple(
            Held(predicted=n * (1_500_000 if n <= predicted else 1_000_000), measured=n * 10**6,
                 macs=n, by_macs=n * 10**6)
            for n in range(1, 11)
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a table, a configuration and a run of it that is whole."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "macs.yaml").write_text(text())
    model = pipeline.Job.prepare(read_config(folder / "macs.yaml")).model
    table = table_of(model, runtime="torch", threads=2, validation=held(1))
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
        assert "2 threads" in card


def section(run):
    page = write_report(run.path).read_text()
    return re.search(r'<section id="latency">.*?</section>', page, re.DOTALL)[0]


def test_the_report_says_what_the_table_is_worth_and_draws_it(run):
    found = section(run)
    assert "Predicted by a table: torch 1, 2 threads, 1 sample a pass, " in found
    assert "Of 10 networks that it was not fitted to, 90% were predicted to within 10%" in found
    assert "the mean error is 5.0%" in found
    assert "Rank correlation of predicted and measured times: 1.000; of MACs and" in found
    assert found.count("<circle ") == 10
    assert "<title>2 ms measured, 2 predicted</title>" in found
    assert "Take care" not in found
    assert "Predicted, ms" in found
    assert "<td>1.5</td>" in found


DOUBTS = {
    "missed": (held(9), "Take care: its predictions are worth less than they should be: rank"),
    "not known": (None, "Take care: its predictions were not compared with networks that were"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_the_report_warns_of_a_table_that_missed_its_gate(name, run):
    validation, said = DOUBTS[name]
    table = json.loads(run.latency.read_text())
    table["validation"] = None if validation is None else validation.model_dump(mode="json")
    write_json(run.latency, table)
    found = section(run)
    assert f'<p class="warning note">{said}' in found
    assert ("<circle" in found) == (validation is not None)


def test_a_damaged_table_is_named(run):
    run.latency.write_text('{"schema_version": 2}')
    with pytest.raises(RunError, match=r"latency\.json: schema_version: "):
        write_report(run.path)
