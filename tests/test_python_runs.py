"""Runs made from Python are reported, compared and exported like those of a configuration."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.small import COST_RANGE, few_digits, files, mobilenet
from typer.testing import CliRunner

import boundnas as bn
from boundnas import SearchSettings, TrainSettings, fit, search
from boundnas.app import budget
from boundnas.app.cli import app
from boundnas.deploy import timing
from boundnas.deploy.networks import verify
from boundnas.errors import ArgumentError, CostError, RunError
from boundnas.latency.timing import Times
from boundnas.report import write_report
from boundnas.report.compare import compare
from boundnas.report.grouping import grouped
from boundnas.report.records import read_run
from boundnas.store.folder import RunFolder

SEARCH = SearchSettings(initial=6, rounds=1, crossovers=2, mutations=2, calibration_images=64)


def made(path, seed=0, settings=SEARCH, **train):
    folder = RunFolder.create(path, "name: made in Python\n")
    train = TrainSettings(**{"steps": 4, "batch_size": 16, **train})
    run = fit(
        mobilenet(), few_digits(), cost_range=COST_RANGE, settings=train, seed=seed, folder=folder
    )
    return run, search(run, settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two seeds each of two kinds of boundaries."""
    root = tmp_path_factory.mktemp("python")
    for learn in ("both", "none"):
        for seed in (0, 1):
            made(root / f"{learn}-{seed}", seed, learn=learn)
    return [root / f"{learn}-{seed}" for learn in ("both", "none") for seed in (0, 1)]


def test_a_run_made_from_python_is_reported(runs):
    page = write_report(runs[0]).read_text()
    assert "trained for 4 steps, learning both boundaries" in page
    front = read_run(runs[0]).front
    assert re.search(rf"front of {len(front.networks)} network", page)
    assert all(n.folder is None for n in front.networks), "nothing was exported"


def test_runs_made_from_python_are_grouped_by_all_but_the_seed(runs):
    found = grouped(runs)
    assert [(g.label, list(g.runs), g.initial) for g in found] == [
        ("learn both", [0, 1], 6),
        ("learn none", [0, 1], 6),
    ]


def test_runs_made_from_python_are_compared(runs, tmp_path):
    numbers = json.loads((compare(runs, tmp_path / "out") / "comparison.json").read_text())
    assert [list(group["seeds"]) for group in numbers["groups"]] == [["0", "1"]] * 2
    assert numbers["cost_range"] == list(COST_RANGE)


def test_runs_of_other_searches_or_models_are_no_seeds_of_one_group(runs, tmp_path):
    made(tmp_path / "other search", 1, SEARCH.model_copy(update={"calibration_images": 32}))
    assert len(grouped([runs[0], tmp_path / "other search"])) == 2
    with pytest.raises(RunError, match="an earlier run has the same configuration and seed 0"):
        grouped([runs[0], runs[0]])


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_made_a_run_folder_and_found_again(kind, runs, tmp_path):
    path = kind(tmp_path / "new" / "run")
    train = TrainSettings(steps=4, batch_size=16)

    def again(**other):
        given = {"cost_range": COST_RANGE, "settings": train, "folder": path, **other}
        return fit(mobilenet(), few_digits(), **given)

    search(again(), SEARCH)
    written = files(tmp_path / "new" / "run")
    assert written.pop("config.yaml").startswith(b"# Made by boundnas.fit")
    expected = files(runs[0])
    del expected["config.yaml"], expected["report.html"]
    assert written.keys() == expected.keys()
    assert written["bounds.json"] == expected["bounds.json"]
    assert again().folder.path == Path(path)  # nothing to train is left
    assert len(grouped([Path(path), runs[1]])[0].runs) == 2
    with pytest.raises(RunError, match="seed = 0, this one has 1"):
        again(seed=1)


def test_a_refused_run_leaves_no_folder_and_takes_none_of_others(tmp_path):
    (tmp_path / "mine").mkdir()
    for path, cost_range, error in (
        (tmp_path / "run", (1e9, 2e9), CostError),
        (tmp_path / "mine", COST_RANGE, RunError),
    ):
        with pytest.raises(error):
            fit(mobilenet(), few_digits(), cost_range=cost_range, folder=path)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def test_a_further_search_sets_the_front_of_the_one_before_aside(tmp_path):
    run, front = made(tmp_path / "run")
    text = run.folder.front.read_text()
    search(run, SEARCH)
    assert run.folder.front.read_text() == text
    assert not list(run.folder.path.glob("front-*.json")), "the same search wrote the same"
    search(run, SEARCH.model_copy(update={"initial": 3, "rounds": 0}))
    assert (run.folder.path / "front-1.json").read_text() == text
    assert json.loads(run.folder.front.read_text())["identity"]["search.initial"] == "3"
    assert front.networks or front.outside


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run that is kept at a path, searched; not to be changed."""
    train = TrainSettings(steps=4, batch_size=16)
    path = tmp_path_factory.mktemp("kept") / "run"
    run = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=train, folder=path)
    search(run, SEARCH)
    return run


def test_its_front_is_exported_with_cards_and_timed_another_day_too(kept, tmp_path, monkeypatch):
    path = shutil.copytree(kept.folder.path, tmp_path / "run")
    run = bn.open(path, model=mobilenet(), data=few_digits())
    places = bn.export_front(run, formats=["pt2"])
    front = read_run(path).front
    assert [str(place.relative_to(path)) for place in places] == [n.folder for n in front.networks]
    for place, network in zip(places, front.networks, strict=True):
        assert verify(place).keys() == {"model.pt2", "architecture.json", "card.md", "SHA256SUMS"}
        assert (
            f"| MACs of one image | {network.costs['macs']:,} |" in (place / "card.md").read_text()
        )
    page = write_report(path).read_text()
    assert all(n.folder in page for n in front.networks)
    assert f"folder               {places[-1].resolve()}" in budget.best(path, {})
    before = files(path)
    assert bn.export_front(run, run.front, formats=["pt2"]) == places
    assert files(path) == before, "what is there is left as it is"
    with pytest.raises(RunError, match=r"Python boundnas.export_front\(run, latency=True\)"):
        budget.best(path, {"latency": 2e6})
    monkeypatch.setattr(timing, "whole", lambda nets, *_: [Times(1_500_000, 1, 2)] * len(nets))
    bn.export_front(run, formats=["pt2"], latency=True)
    assert re.search("^latency +1.5 ms$", budget.best(path, {"latency": 2e6}), re.MULTILINE)


@pytest.mark.parametrize("command", ["search", "export"])
def test_a_command_that_needs_its_code_says_what_to_call(command, kept):
    path, before = kept.folder.path, files(kept.folder.path)
    done = CliRunner().invoke(app, [command, str(path)])
    assert done.exit_code == 1
    assert done.stderr == (
        f"ArgumentError: {path} was made from Python, whose code is not kept; do it there: "
        f"run = boundnas.open('{path}', model=..., data=...); boundnas."
        f"{ {'search': 'search', 'export': 'export_front'}[command] }(run)\n"
    )
    assert files(path) == before


REFUSED = {
    "nowhere": (lambda run: replace(run, folder=None), {}, ArgumentError, "is kept in no folder"),
    "no format": (lambda run: run, {"formats": []}, ArgumentError, "formats is empty; name one of"),
    "another format": (lambda run: run, {"formats": ["tflite"]}, ArgumentError, "formats must be"),
    "no front": (
        lambda run: replace(run, fronts=[], folder=RunFolder.create(run.folder.path / "new", "")),
        {},
        RunError,
        "was not searched yet",
    ),
    "other weights": (
        lambda run: replace(run, model=mobilenet(last_width=16)),
        {"formats": ["pt2"]},
        RunError,
        "other weights than when this run was searched",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_front_that_cannot_be_exported_is_refused(case, kept, tmp_path):
    other, given, error, message = REFUSED[case]
    path = shutil.copytree(kept.folder.path, tmp_path / "run")
    run = replace(kept, folder=RunFolder.open(path))
    with pytest.raises(error, match=message):
        bn.export_front(other(run), **given)
    assert not list(path.rglob("model.*"))
