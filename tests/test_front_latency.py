"""The networks of a front, timed after they were written: noted beside them, shown, kept."""

import json
import re
import shutil

import pytest
from tests.reliability.tiny import text
from tests.small import files, mobilenet
from tests.test_latency_runs import project
from tests.times import table_of

from boundnas.app import budget, pipeline
from boundnas.config import RunConfig, read_config
from boundnas.cost import Latency, MACs
from boundnas.deploy import timing
from boundnas.deploy.timing import Deployment
from boundnas.errors import ConfigError, CostError, RunError
from boundnas.latency.timing import Times
from boundnas.settings import ExportSettings
from boundnas.store.folder import RunFolder

DIFFER = {"latency.json", "card.md", "SHA256SUMS", "report.html"}
"""Files of a run that hold measured times, and so differ between two runs."""


def config(folder, formats):
    """The tiny configuration with its networks timed."""
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    asked = text(formats).replace("initial: 3", "initial: 8")
    path.write_text(asked.replace("]}\n", "], latency: true}\n"))
    return read_config(path)


def made_up(networks, *_):
    """Times that are known: of the first 1.5 ms, of each other one a tenth more."""
    return [Times(1_500_000 + 100_000 * n, 1_250_000, 3_000_000) for n in range(len(networks))]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with a run whose networks were timed in torch, in made up times."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "whole", made_up)
        run, _ = pipeline.run(config(folder, "pt2"), folder)
    assert len(networks(run)) > 1
    return folder


@pytest.fixture
def timed(once, tmp_path):
    """A copy of it; its configuration and its run folder."""
    folder = shutil.copytree(once, tmp_path / "copy")
    return config(folder, "pt2"), RunFolder.open(folder / "tiny")


def networks(run):
    return [run.path / n["folder"] for n in json.loads(run.front.read_text())["networks"]]


def held(run):
    return [json.loads((place / "latency.json").read_text()) for place in networks(run)]


def test_every_file_of_every_network_is_really_timed_in_its_runtime(tmp_path):
    asked = config(tmp_path, "onnx, int8")
    few = asked.search.model_copy(update={"initial": 3})
    run, _ = pipeline.run(asked.model_copy(update={"search": few}), tmp_path)
    for place, found in zip(networks(run), held(run), strict=True):
        assert (found["runtime"], found["threads"], found["batch"]) == ("onnxruntime", 1, 1)
        assert found["times"].keys() == {"model.onnx", "model.int8.onnx"}
        for name, times in found["times"].items():
            assert 0 < times["lower"] <= times["median"] <= times["upper"] < 1e9
            said = f"| Latency, `{name}` measured | {times['median'] / 1e6:.4g} ms (quartiles "
            assert said in (place / "card.md").read_text()


def costs(of=None):
    """MACs, and a latency whose table was measured in torch on two threads, eight at a time."""
    model = mobilenet()
    if of is None:
        return [MACs(model)]
    table = table_of(model, 0).model_copy(update={"runtime": of, "threads": 2, "batch": 8})
    return [MACs(model), Latency(model, table)]


PLACES = {
    "its files": (["onnx", "pt2"], True, None, Deployment("onnxruntime")),
    "its files in 8 bits": (["int8"], True, None, Deployment("onnxruntime")),
    "other files": (["pt2"], True, None, Deployment("torch")),
    "not asked for": (["onnx"], False, None, None),
    "nothing said": (["onnx", "int8"], None, None, None),
    "a cost is latency": (["onnx"], None, "torch", Deployment("torch", 2, 8)),
    "nor then": (["onnx"], False, "torch", None),
}


@pytest.mark.parametrize("case", PLACES)
def test_networks_are_timed_where_their_cost_was_measured_or_their_files_run(case):
    formats, latency, table, place = PLACES[case]
    assert timing.deployment(costs(table), formats, latency) == place


def test_times_stand_beside_a_network_and_on_its_card(timed):
    _, run = timed
    for number, found in enumerate(held(run)):
        assert (found["runtime"], found["threads"], found["batch"]) == ("torch", 1, 1)
        assert found["times"] == {
            "network": {
                "median": 1_500_000 + 100_000 * number,
                "lower": 1_250_000,
                "upper": 3_000_000,
            }
        }
    card = (networks(run)[0] / "card.md").read_text()
    assert "| Latency, measured | 1.5 ms (quartiles 1.25 to 3) |\n" in card
    assert f"| Measured in | torch {found['version']}, 1 thread, 1 sample a pass, " in card


def test_the_report_and_best_show_what_was_measured(timed):
    _, run = timed
    page = run.report.read_text()
    section = re.search(r'<section id="latency">.*?</section>', page, re.DOTALL)[0]
    assert "Each network of the front, timed after it was written: torch " in section
    assert len(re.findall(r"<td>1\.25 to 3</td>", section)) == len(networks(run))
    assert "<td>1.5</td>" in section
    assert '<a href="#latency">Latency</a>' in page
    said = budget.best(run.path, {})
    assert re.search(r"^latency of network +1\.\d+ ms \(quartiles 1\.25 to 3\)$", said, re.M)
    assert re.search(r"^measured in +torch ", said, re.M)


def test_what_was_timed_is_not_timed_again(timed, monkeypatch):
    asked, run = timed
    before = files(run.path)
    monkeypatch.setattr(timing, "whole", None)
    pipeline.run(asked, run.path.parent)
    assert files(run.path) == before


def test_a_new_measurement_changes_the_files_that_hold_times_and_no_others(timed, monkeypatch):
    asked, run = timed
    before = files(run.path)
    monkeypatch.setattr(timing, "cpu_model", lambda: "another processor")
    monkeypatch.setattr(timing, "whole", lambda n, *_: made_up(n * 2)[len(n) :])
    pipeline.run(asked, run.path.parent)
    after = files(run.path)
    assert after.keys() == before.keys()
    assert {k.split("/")[-1] for k in after if after[k] != before[k]} == DIFFER
    assert {found["machine"] for found in held(run)} == {"another processor"}


def test_a_run_that_was_stopped_while_times_were_noted_times_all_networks_again(timed, monkeypatch):
    asked, run = timed
    note = timing.note_latency

    def stopped(network, *rest):
        note(network, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "cpu_model", lambda: "another processor")
    monkeypatch.setattr(timing, "whole", lambda n, *_: made_up(n)[::-1])
    monkeypatch.setattr(timing, "note_latency", stopped)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(asked, run.path.parent)
    assert len({found["machine"] for found in held(run)}) == 2
    monkeypatch.setattr(timing, "note_latency", note)
    pipeline.run(asked, run.path.parent)
    medians = [found["times"]["network"]["median"] for found in held(run)]
    assert medians == [1_500_000 + 100_000 * n for n in reversed(range(len(medians)))]
    assert {found["machine"] for found in held(run)} == {"another processor"}


def test_timing_without_files_is_refused_before_training(tmp_path):
    asked = config(tmp_path, "pt2").model_dump()
    with pytest.raises(ConfigError, match=r"export\.latency +written networks are timed, and exp"):
        RunConfig(**{**asked, "export": {"formats": [], "latency": True}})


def test_best_finds_a_network_by_measured_latency_where_none_was_predicted(timed):
    _, run = timed
    said = budget.best(run.path, budget.budget(["--latency", "1.55ms"]))
    assert re.search(r"^latency +1\.5 ms$", said, re.M)
    assert re.search(rf"^folder +{networks(run)[0].resolve()}$", said, re.M)
    with pytest.raises(RunError, match=r"at most 1 ms latency; the smallest has .* 1\.5 ms lat"):
        budget.best(run.path, {"latency": 1e6})
    for place in networks(run):
        shutil.rmtree(place)
    with pytest.raises(RunError, match=r"not timed; write latency: true into the section export"):
        budget.best(run.path, {"latency": 1e6})


WRITTEN = ExportSettings(formats=("pt2",))
TABLES = {
    "an unknown runtime": ({"runtime": "a phone"}, "runtime 'a phone' is unknown.*latency: false"),
    "more threads than cores": (
        {"runtime": "torch", "threads": 9999},
        r"threads is 1 to \d+,.* found 9999; or set export.latency: false",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_cannot_be_timed_here_is_said_before_training(name, tmp_path):
    values, said = TABLES[name]
    path = project(tmp_path / "here", **values)
    asked = read_config(path)
    with pytest.raises(CostError, match=said):
        pipeline.run(asked.model_copy(update={"export": WRITTEN}), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    untimed = WRITTEN.model_copy(update={"latency": False})
    for export in (asked.export, untimed):
        pipeline.Job.prepare(asked.model_copy(update={"export": export})).check()
