"""Runs whose cost is a latency table, from a configuration and from Python."""

import json
import re
import shutil

import pytest
from tests.small import few_digits, mobilenet
from tests.test_every_setting import BASE
from tests.times import nanoseconds, table_of

import boundnas as bn
from boundnas.app import budget, pipeline
from boundnas.config import RunConfig, read_config, write_config
from boundnas.cost import Latency, LatencyTable
from boundnas.errors import ConfigError, CostError, RunError
from boundnas.fit import identity
from boundnas.store.files import canonical_json

RANGE = (0.08, 0.11)
"""Milliseconds that about half of the small networks take by their table."""


def project(folder, *further, **values):
    """A folder with a configuration and the table that it names, which says such values."""
    (folder / "tables").mkdir(parents=True)
    model = pipeline.Job.prepare(RunConfig.model_validate(BASE)).model
    (folder / "tables/phone.json").write_text(
        canonical_json(table_of(model, 0, **values).written())
    )
    latency = {"metric": "latency", "table": "tables/phone.json"}
    latency |= {"lower": RANGE[0], "upper": RANGE[1]}
    (folder / "run.yaml").write_text(json.dumps({**BASE, "cost": [latency, *further]}))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run in latency and MACs, whose table is gone since; not to be changed."""
    folder = tmp_path_factory.mktemp("project")
    config = project(folder / "here", {"metric": "macs", "lower": 0.012, "upper": 0.04})
    made, front = pipeline.run(read_config(config), folder / "runs")
    (folder / "here/tables/phone.json").unlink()
    return made.path, front


def test_a_configuration_asks_for_milliseconds_of_a_table_beside_it(ran):
    path, front = ran
    assert front.ranges == {"latency": (80_000, 110_000), "macs": (12_000, 40_000)}
    cost = bn.open(path).costs[0]
    assert isinstance(cost, Latency)
    networks = (*front.networks, *front.outside)
    assert networks
    assert all(n.costs["latency"] == cost(n.arch) for n in networks)
    assert re.search("table: latency.json  # [0-9a-f]{16}\n", (path / "config.yaml").read_text())


def test_its_folder_is_all_that_is_needed_wherever_it_lies(ran, tmp_path):
    path, front = ran
    copy = shutil.copytree(path, tmp_path / "elsewhere/small")
    assert bn.open(copy).costs[0].reach == bn.open(path).costs[0].reach
    (copy / "front.json").unlink()
    with pipeline.working(read_config(copy / "config.yaml"), copy) as (job, folder):
        again = job.search(job.train(folder))
    assert [n.to_json() for n in again.networks] == [n.to_json() for n in front.networks]
    assert "latency" in budget.best(copy, {"latency": 1e6})


def edited(path, factor=2):
    """The same table with another first time."""
    table = json.loads(path.read_text())
    table["blocks"][0]["times"][0] *= factor
    path.write_text(canonical_json(table))


def test_another_table_is_another_run(tmp_path):
    config = project(tmp_path / "here")
    pipeline.run(read_config(config), tmp_path / "runs")
    before = read_config(config)
    pipeline.run(before, tmp_path / "runs")  # which goes on with what is there
    edited(tmp_path / "here/tables/phone.json")
    after = read_config(config)
    assert before != after
    assert identity.of_settings(before, "") != identity.of_settings(after, "")
    with pytest.raises(RunError, match=r"another configuration; line \d+ .*latency\.json  # "):
        pipeline.run(after, tmp_path / "runs")


def test_the_table_in_the_folder_counts_and_none_that_was_put_there(ran, tmp_path):
    copy = shutil.copytree(ran[0], tmp_path / "small")
    edited(copy / "latency.json")
    with pytest.raises(
        RunError, match=r"holds a run with .*(costs of twelve networks|terms of the)"
    ):
        bn.open(copy)
    (copy / "latency.json").unlink()
    with pytest.raises(ConfigError, match=r"cost\[0\]\.table  .*latency\.json is no file"):
        bn.open(copy)


def test_written_and_read_again_it_is_the_same(tmp_path):
    config = read_config(project(tmp_path / "here"))
    (tmp_path / "copy.yaml").write_text(write_config(config))
    assert read_config(tmp_path / "copy.yaml") == config
    assert config.cost[0].table.path == tmp_path / "here/tables/phone.json"
    held = identity.of_settings(config, "")
    assert held["cost.table"] == json.dumps(config.cost[0].table.digest)


FAULTS = {
    "no table": (
        {"table": None},
        "cost.table  required with cost.metric: latency; give the path of its table",
    ),
    "no file": (
        {"table": "tables/none.json"},
        "cost.table  {folder}/tables/none.json is no file, or none of at most 268,435,456 bytes; "
        "give the path of a latency table",
    ),
    "a number": ({"table": 5}, "cost.table  must be the path of a latency table, found 5"),
    "with another metric": (
        {"metric": "macs"},
        "cost.table  goes with cost.metric: latency only; remove it or change the metric",
    ),
    "not ascending": (
        {"upper": 0.01},
        "cost.upper  0.01 is not above cost.lower = 0.08 (both in milliseconds)",
    ),
}


@pytest.mark.parametrize(("change", "said"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_in_the_configuration_is_told_with_its_line(change, said, tmp_path):
    path = project(tmp_path / "here")
    settings = json.loads(path.read_text())
    settings["cost"] = {**settings["cost"][0], **change}
    path.write_text(json.dumps(settings))
    with pytest.raises(ConfigError) as error:
        read_config(path)
    (line,) = str(error.value).splitlines()[1:]
    assert line == "  line 1  " + said.replace("{folder}", str(path.parent))


def test_a_table_of_another_model_is_refused_before_a_folder_is_made(tmp_path):
    path = project(tmp_path / "here")
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "space": {**settings["space"], "last_width": 9}}))
    with pytest.raises(CostError, match=r"tables/phone\.json: is of another model: it has other"):
        pipeline.run(read_config(path), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_from_python_keeps_its_table(tmp_path):
    model = mobilenet()
    cost = Latency(model, table_of(model, 0))
    low, high = cost.reach
    assert high > low > 0
    settings = bn.TrainSettings(steps=2, batch_size=16)
    inside = (low * 1.1, high * 0.9)
    folder = tmp_path / "run"
    bn.fit(model, few_digits(), cost=cost, cost_range=inside, settings=settings, folder=folder)
    assert LatencyTable.read(folder / "latency.json") == cost.table
    again = mobilenet()
    costs = Latency(again, folder / "latency.json")
    run = bn.open(folder, model=again, data=few_digits(), cost=costs)
    assert run.budgets[0].range == inside
    other = Latency(again, table_of(again, 0, lambda s: nanoseconds(s) + 1))
    with pytest.raises(RunError, match="holds a run with"):
        bn.open(folder, model=mobilenet(), data=few_digits(), cost=other)
