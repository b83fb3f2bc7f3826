"""The command line: the whole job, step by step, again, refused, interrupted."""

import contextlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys

import pytest
from tests.reliability.tiny import STEPS, text
from tests.small import ACCURACY, files
from typer.testing import CliRunner

import boundnas as bn
import boundnas.data.fashion
from boundnas.app.budget import budget as limits
from boundnas.app.cli import app
from boundnas.deploy import networks
from boundnas.method.sandwich import Sandwich
from boundnas.search import Evaluator

CONFIG = text("pt2")


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Work in a folder that holds the configuration; call with another text to change it."""
    monkeypatch.chdir(tmp_path)

    def write(text=CONFIG):
        (tmp_path / "run.yaml").write_text(text)
        return tmp_path

    write()
    return write


def call(*arguments):
    """Run a command in this process; anything but an orderly exit is a failure here."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def spawn(folder, *arguments, before="", timeout=120):
    """Run a command in a process of its own, after some Python code."""
    code = f"{before}\nfrom boundnas.app.cli import app\napp()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which ``boundnas run`` was called, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "run.yaml").write_text(CONFIG)
    with contextlib.chdir(folder):
        done = call("run", "run.yaml")
    assert done.exit_code == 0, done.stderr
    return folder / "runs" / "tiny", done


def test_one_command_does_the_whole_job(whole):
    folder, done = whole
    found = files(folder)
    networks = sorted((folder / "networks").iterdir())
    assert {
        "config.yaml", "environment.json", "space.json", "metrics.jsonl", "boundaries.jsonl",
        "bounds.json", "search/evaluations.jsonl", "front.json", "report.html",
    } <= found.keys()  # fmt: skip
    assert not [name for name in found if "partial" in name]
    held = json.loads((folder / "front.json").read_text())["networks"]
    assert sorted(n["folder"] for n in held) == [f"networks/{path.name}" for path in networks]
    assert networks
    for network in networks:
        names = ["SHA256SUMS", "architecture.json", "card.md", "model.pt2"]
        assert sorted(path.name for path in network.iterdir()) == names
        assert f"{int(network.name) / 1e6:.3f}" in done.stdout
    assert f"Report: {folder / 'report.html'}" in done.stdout
    for label in (f"train  step {STEPS}/{STEPS}", "search  network", "export  network"):
        assert label in done.stderr


def test_the_steps_one_by_one_give_the_same_bytes(whole, configured):
    folder = configured() / "runs" / "tiny"
    for arguments in (("train", "run.yaml"), ("search", folder), ("export", folder)):
        assert call(*arguments).exit_code == 0
        report = call("report", folder)
        assert report.exit_code == 0
        assert f"Report: {folder / 'report.html'}" in report.stdout
    assert files(folder) == files(whole[0])


def test_a_second_call_does_nothing_twice(whole, configured, monkeypatch):
    folder = configured()
    for name, content in files(whole[0].parents[1]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    monkeypatch.setattr(Sandwich, "step", None)
    monkeypatch.setattr(Evaluator, "judged", None)
    monkeypatch.setattr(networks, "files_of", None)
    result = call("run", "run.yaml")
    assert result.exit_code == 0
    assert "Front" in result.stdout
    assert files(folder) == files(whole[0].parents[1])


def test_another_folder_for_the_runs_can_be_given(configured):
    folder = configured()
    assert call("train", "run.yaml", "--runs", "elsewhere").exit_code == 0
    assert (folder / "elsewhere" / "tiny" / "bounds.json").is_file()
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", ["~", "~/runs", "~root/runs"])
@pytest.mark.parametrize(
    "arguments",
    [("train", "run.yaml", "--runs"), ("compare", "a", "--out")],
    ids=lambda arguments: arguments[0],
)
def test_a_home_that_the_shell_did_not_expand_never_becomes_a_folder(arguments, name, configured):
    folder = configured()
    refused = call(*arguments, name)
    assert refused.exit_code == 2
    assert f"the shell did not expand {name.split('/')[0]}" in refused.output
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_export_without_formats_writes_no_network(configured):
    folder = configured(CONFIG.replace("[pt2]", "[]"))
    assert call("run", "run.yaml").exit_code == 0
    assert (folder / "runs" / "tiny" / "report.html").is_file()
    assert not (folder / "runs" / "tiny" / "networks").exists()


REFUSED = {
    "a faulty key": ("steps:", "stepz:", r"did you mean train\.steps"),
    "a faulty value": ("batch_size: 16", "batch_size: 1", r"train\.batch_size"),
    "a range out of reach": (
        "lower: 0.012, upper: 0.04", "lower: 1, upper: 2",
        r"CostError: .* reach from 0\.\d+ to 0\.\d+ MMACs",
    ),
    "a batch above the data set": (
        "batch_size: 16", "batch_size: 2000", r"DataError: .*1 to \d+.* found 2000",
    ),
    "a prior of another space": (
        "train: {", "train: {prior: [{dimensions: stage9.kernel, largest: 3}], ",
        r"SpaceError: .*names no dimension of this space; there are stem\.width, ",
    ),
    "images that are not there": (
        "set: digits", "{set: folder, folder: nowhere, image_size: 8}", r"DataError: .*nowhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(("old", "new", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_answered_and_creates_nothing(old, new, message, command, configured):
    text = CONFIG.replace(old, new).replace("data:\n  {", "data: {")
    assert text != CONFIG
    folder = configured(text)
    result = call(command, "run.yaml")
    assert result.exit_code == 2
    assert not result.stdout
    assert re.search(message, result.stderr), result.stderr
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_a_cost_range_that_has_no_widths_to_cut_is_refused_and_creates_nothing(configured):
    text = CONFIG.replace("train: {", "train: {bounds: from_cost, ")
    for old, new in (("[2, 4]", "[4]"), ("[4, 8]", "[8]"), ("[4, 6]", "[6]")):
        text = text.replace(old, new)
    folder = configured(text)
    result = call("run", "run.yaml")
    assert result.exit_code == 2
    assert "SpaceError: train.bounds = from_cost cuts widths" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_what_the_cost_range_cut_is_told_and_reported(configured):
    text = CONFIG.replace(f"steps: {STEPS}", "steps: 2, bounds: from_cost").replace("[pt2]", "[]")
    folder = configured(text.replace("upper: 0.04", "upper: 0.018"))
    result = call("run", "run.yaml")
    assert result.exit_code == 0, result.output
    run = boundnas.open(folder / "runs" / "tiny")
    assert run.clip.record.left < run.clip.record.whole
    said = run.clip.record.said.capitalize()
    assert f"{said}\n" in result.stderr
    assert f"{said}. At the start" in (folder / "runs" / "tiny" / "report.html").read_text()


def test_a_missing_configuration_is_named(configured):
    folder = configured()
    result = call("run", "other.yaml")
    assert result.exit_code == 2
    assert result.stderr == (
        "ConfigError: other.yaml does not exist; give the path of a configuration file\n"
    )
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_missing_fashion_mnist_says_how_to_get_it(configured, monkeypatch):
    folder = configured(CONFIG.replace("set: digits", "set: fashion_mnist"))
    monkeypatch.setattr(boundnas.data.fashion, "DEBIAN_FOLDER", folder / "nowhere")
    result = call("run", "run.yaml")
    assert result.exit_code == 2
    assert f"4 of 4 files not found in {folder / 'nowhere'}" in result.stderr
    assert "apt-get install dataset-fashion-mnist" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_a_run_of_another_configuration_is_left_alone(whole, configured):
    folder = configured(CONFIG.replace("lower: 0.012", "lower: 0.013"))
    held = folder / "runs" / "tiny"
    held.mkdir(parents=True)
    (held / "config.yaml").write_bytes((whole[0] / "config.yaml").read_bytes())
    result = call("run", "run.yaml")
    assert result.exit_code == 1
    assert "holds a run of another configuration" in result.stderr
    assert "0.012" in result.stderr
    assert "0.013" in result.stderr
    assert sorted(path.name for path in held.iterdir()) == [".lock", "config.yaml"]


def test_a_folder_that_is_no_run_is_left_alone(configured):
    held = configured() / "runs" / "tiny"
    held.mkdir(parents=True)
    (held / "precious.txt").write_text("mine")
    for arguments in (("run", "run.yaml"), ("search", held), ("export", held), ("report", held)):
        result = call(*arguments)
        assert result.exit_code == 1
        assert "is no run folder" in result.stderr
    assert [path.name for path in held.iterdir()] == ["precious.txt"]


def test_a_damaged_front_says_what_to_do(whole, configured):
    folder = configured() / "runs" / "tiny"
    for name, content in files(whole[0]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "front.json").write_bytes(b"{")
    result = call("search", folder)
    assert result.exit_code == 1
    assert "front.json: Invalid JSON" in result.stderr
    (folder / "front.json").unlink()
    assert call("search", folder).exit_code == 0
    assert files(folder) == files(whole[0])


def test_the_version_is_printed():
    assert call("--version").stdout == f"boundnas {importlib.metadata.version('boundnas')}\n"


def held(folder):
    """The networks of the front in a run folder."""
    return json.loads((folder / "front.json").read_text())["networks"]


def rows(text):
    """What ``boundnas best`` printed, as pairs."""
    return [tuple(re.split("  +", line, maxsplit=1)) for line in text.splitlines()]


def test_the_best_network_for_a_budget_is_printed_with_its_files(whole):
    folder = whole[0]
    networks = held(folder)
    for network in networks:
        costs, place = network["costs"], folder / network["folder"]
        for budget in ([f"--macs={costs['macs']}"], ["--macs", f"{costs['macs'] / 1e3}k"]):
            assert rows(call("best", *budget, folder).stdout) == [
                ("macs", f"{costs['macs']:,}"),
                ("parameters", f"{costs['parameters']:,}"),
                ("validation accuracy", ACCURACY.shown(network["validation"])),
                ("test accuracy", ACCURACY.shown(network["test"])),
                ("folder", str(place.resolve())),
                *(
                    ("file", f"{name}, {(place / name).stat().st_size:,} bytes")
                    for name in ("architecture.json", "card.md", "model.pt2")
                ),
            ]
    assert call("best", folder).stdout == call("best", folder, "--macs=1G").stdout
    assert ("macs", f"{networks[-1]['costs']['macs']:,}") in rows(call("best", folder).stdout)
    few = min(network["costs"]["parameters"] for network in networks)
    found = rows(call("best", folder, "--parameters", few).stdout)
    assert ("parameters", f"{few:,}") in found


OTHER = {
    "a range": (["--macs=15k..30k"], {"macs": [15e3, 30e3]}, True),
    "another cost": (["--parameters", "700..1.2k"], {"parameters": [700.0, 1200.0]}, False),
    "several": (
        ["--parameters", "700..1.2k", "--macs", "15k..30k", "--bounds", "whole"],
        {"macs": [15e3, 30e3], "parameters": [700.0, 1200.0]},
        False,
    ),
    "a cost by name": (["--bytes=15k..20k"], {"bytes": [15e3, 20e3]}, False),
}


@pytest.mark.parametrize(("words", "ranges", "measured"), OTHER.values(), ids=OTHER)
def test_a_run_is_searched_again_for_other_costs(words, ranges, measured, whole, tmp_path):
    folder, _ = copied(whole, tmp_path / "run")
    before = files(folder)
    done = call("search", folder, *words)
    assert done.exit_code == 0, done.stderr
    front, now = json.loads((folder / "front.json").read_text()), files(folder)
    assert front["ranges"] == ranges
    assert now["front-1.json"] == before["front.json"]
    journal = "search/evaluations.jsonl" if measured else "search/evaluations-1.jsonl"
    assert now[journal] == before["search/evaluations.jsonl"]
    again = call("search", folder, *words)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert call("export", folder).exit_code == 0, "of the front that is there"
    assert files(folder)["front.json"] == now["front.json"]
    assert all((folder / n["folder"] / "model.pt2").is_file() for n in held(folder))
    assert call("search", folder).exit_code == 0
    assert files(folder)["front.json"] == before["front.json"], "as the configuration says"


TOP = """
from boundnas.tasks import Classification

class Top3(Classification):
    metric = "top-3 accuracy"

    def score(self, outputs, targets):
        return (outputs.topk(3).indices == targets[:, None]).any(1).float()
"""


def test_a_run_is_searched_again_by_another_metric(whole, tmp_path, monkeypatch):
    folder, _ = copied(whole, tmp_path / "run")
    before = files(folder)
    (tmp_path / "top.py").write_text(TOP)
    monkeypatch.chdir(tmp_path)
    done = call("search", folder, "--task", "top.py:Top3")
    assert "top-3" in done.stdout, done.stderr
    now = files(folder)
    assert now["front-1.json"] == before["front.json"]
    assert now["search/evaluations-1.jsonl"] == before["search/evaluations.jsonl"]
    assert call("search", folder, "--task", "top.py:Top3").stdout == done.stdout
    assert call("export", folder, "--task=top.py:Top3").exit_code == 0
    assert files(folder)["front.json"] == now["front.json"]
    card = (folder / held(folder)[0]["folder"] / "card.md").read_text()
    assert "| Test top-3 accuracy |" in card
    assert call("search", folder).exit_code == 0
    assert files(folder)["front.json"] == before["front.json"], "as the configuration says"


TASKS = {
    "no task": ("acuracy", r"task must be classification, .* or one of your own as FILE.py:NAME"),
    "no file": ("gone.py:Top3", r"task  .*gone\.py is no file|task  .*gone\.py"),
    "another kind": ("regression", r"Regression would take the same outputs for something else"),
}


@pytest.mark.parametrize(("name", "message"), TASKS.values(), ids=TASKS)
def test_a_task_that_is_not_there_or_does_not_fit_changes_nothing(name, message, whole, tmp_path):
    folder, _ = copied(whole, tmp_path / "run")
    before = files(folder)
    refused = call("search", folder, "--task", name)
    assert refused.exit_code == 1
    assert re.search(message, refused.stderr), refused.stderr
    assert files(folder) == before


def test_an_edited_configuration_is_what_is_exported(whole, tmp_path):
    folder, _ = copied(whole, tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("mutations: 1", "mutations: 2"))
    assert call("export", folder).exit_code == 0
    front = json.loads((folder / "front.json").read_text())
    assert front["identity"]["search.mutations"] == "2"


RANGES = {
    "one number": (["--macs", "5M"], 2, r"--macs: must be a range.*as in --macs 1M..5M; found 5M"),
    "descending": (["--macs", "5M..1M"], 2, r"--macs: a range ascends, found 5M..1M"),
    "no number": (["--macs", "1M.."], 2, r"--macs: must be a number above 0.*found nothing"),
    "twice": (["--macs=1..2", "--macs=2..3"], 2, r"--macs: is given twice"),
    "no name": (["1M..5M"], 2, r"1M..5M: is no limit.*as in --macs 1M..5M"),
    "an unknown cost": (["--energy=1..2"], 1, r"no cost energy; there are macs, parameters, bytes"),
    "out of reach": (["--macs=1G..2G"], 1, r"no network of this space costs"),
    "other bounds": (["--bounds", "all"], 2, r"'all' is not one of 'learned'"),
}


@pytest.mark.parametrize(("words", "code", "message"), RANGES.values(), ids=RANGES)
def test_ranges_that_cannot_be_read_or_met_change_nothing(words, code, message, whole, tmp_path):
    folder, _ = copied(whole, tmp_path / "run")
    before = files(folder)
    refused = call("search", folder, *words)
    assert refused.exit_code == code
    assert re.search(message, " ".join(refused.stderr.split())), refused.stderr
    assert files(folder) == before


NUMBERS = {
    "5": 5,
    ".5k": 500,
    "1.5M": 1.5e6,
    "2G": 2e9,
    "1e3": 1e3,
    "1e-1M": 1e5,
    "7.": 7,
    "16.208k": 16208,
}


@pytest.mark.parametrize(("text", "number"), NUMBERS.items(), ids=NUMBERS)
def test_a_number_may_be_followed_by_thousands_millions_or_billions(text, number):
    assert limits(["--macs", text]) == limits([f"--macs={text}"]) == {"macs": number}


TIMES = {"8ms": 8e6, ".5us": 500, "2s": 2e9, "70ns": 70, "1e-1ms": 1e5}


@pytest.mark.parametrize(("text", "number"), TIMES.items(), ids=TIMES)
def test_a_latency_is_followed_by_its_unit(text, number):
    assert limits([f"--latency={text}"]) == {"latency": number}


BUDGETS = {
    "too small": (["--macs", "1"], 1, r"no network of the front has at most 1 macs; the smallest"),
    "an unknown cost": (["--energy=1"], 1, r"no cost energy; it has macs, parameters"),
    "a word": (["--macs", "little"], 2, r"--macs: must be a number above 0.*found little"),
    "a negative number": (["--macs", "-5M"], 2, r"--macs: must be a number above 0.*found -5M"),
    "zero": (["--macs", "0k"], 2, r"found 0k"),
    "too large": (["--macs", "1e308G"], 2, r"found 1e308G"),
    "another unit": (["--macs", "5T"], 2, r"found 5T"),
    "a time without a unit": (
        ["--latency", "8"],
        2,
        r"--latency: must be .*with ns, us, ms or s behind it.*8ms; found 8",
    ),
    "a time of another cost": (["--macs", "8ms"], 2, r"--macs: must be .*found 8ms"),
    "a time that nothing was told of": (["--latency=8ms"], 1, r"networks were not timed; write"),
    "no number": (["--energy"], 2, r"--energy: must be a number above 0.*found nothing"),
    "twice": (["--macs=1", "--macs=2"], 2, r"--macs: is given twice"),
    "no name": (["5M"], 2, r"5M: is no limit; write the name of a cost"),
}


@pytest.mark.parametrize(("words", "code", "message"), BUDGETS.values(), ids=BUDGETS)
def test_a_budget_that_cannot_be_met_or_read_is_refused(words, code, message, whole):
    refused = call("best", whole[0], *words)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert re.search(message, refused.stderr), refused.stderr


def copied(whole, folder):
    """A run folder like that of ``boundnas run``."""
    for name, content in files(whole[0]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder, folder / held(folder)[-1]["folder"]


def test_files_that_are_not_there_or_not_of_the_network_are_not_shown(whole, tmp_path):
    folder, place = copied(whole, tmp_path / "run")
    (place / "model.pt2").write_bytes(b"half")
    damaged = call("best", folder)
    assert damaged.exit_code == 1
    assert "model.pt2: is not what was written, by SHA256SUMS" in damaged.stderr
    shutil.rmtree(place)
    expected = ("files", f"none yet; boundnas export {folder} writes them")
    assert rows(call("best", folder).stdout)[-1] == expected
    shutil.copytree(whole[0] / held(folder)[-1]["folder"], place)
    known = json.loads((place / "architecture.json").read_text())
    (place / "architecture.json").write_text(json.dumps({**known, "test": 1.0}))
    content = {path.name: path.read_bytes() for path in place.iterdir()}
    (place / "SHA256SUMS").write_text(networks._sums(content))
    expected = ("files", f"of another network; boundnas export {folder} writes them anew")
    assert rows(call("best", folder).stdout)[-1] == expected
    (folder / "front.json").unlink()
    searched = call("best", folder)
    assert searched.exit_code == 1
    assert f"has no front yet; boundnas search {folder} finds it" in searched.stderr


def test_a_front_exported_from_python_is_what_the_command_writes(whole, tmp_path):
    folder, place = copied(whole, tmp_path / "run")
    shutil.rmtree(place)
    assert place in bn.export_front(bn.open(folder), formats=["pt2"])
    assert files(folder) == files(whole[0])
