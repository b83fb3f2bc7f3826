"""Validation while training: what the search would measure then, and the same training."""

import json

import pytest
from tests.small import COST_RANGE, digest, few_digits, files, mobilenet
from tests.test_observers import Notes
from tests.test_report import browser, page  # noqa: F401

import boundnas as bn
from boundnas.errors import ArgumentError
from boundnas.report.content import figures
from boundnas.report.page import render
from boundnas.report.records import read_run
from boundnas.search import Evaluator

FEW = bn.SearchSettings(calibration_images=64, batch_size=32)
STEPS = 6


def trained(folder, observers, **more):
    train = bn.TrainSettings(
        steps=STEPS, batch_size=16, checkpoint_every=2, ghost_fraction=1, **more
    )
    given = {"cost_range": COST_RANGE, "settings": train, "folder": folder}
    return bn.fit(mobilenet(), few_digits(), observers=observers, **given)


def of_training(folder):
    return {k: v for k, v in files(folder).items() if k != "validation.jsonl"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run that was validated every third step; not to be changed."""
    validation = bn.Validation(3, between=2, settings=FEW)
    return trained(tmp_path_factory.mktemp("watched") / "run", [validation]), validation


def test_training_is_the_same_with_and_without_validation(watched, tmp_path):
    without = trained(tmp_path / "run", [])
    assert of_training(watched[0].folder.path) == of_training(tmp_path / "run")
    assert digest(watched[0].model) == digest(without.model)


def test_what_was_frozen_stays_so_and_the_rest_trains_on(tmp_path):
    model, heard = mobilenet(), []
    model.classifier.eval()
    before = {name: m.training for name, m in model.named_modules()}

    class Modes(bn.Observer):
        def step(self, row):
            heard.append({name: m.training for name, m in model.named_modules()})

    given = {"cost_range": COST_RANGE, "settings": bn.TrainSettings(steps=2, batch_size=16)}
    bn.fit(model, few_digits(), observers=[bn.Validation(1, settings=FEW), Modes()], **given)
    assert heard == [before, before]


def test_the_rows_are_those_of_the_search_at_that_step(watched):
    run, validation = watched
    rows = [json.loads(line) for line in run.folder.validation.read_text().splitlines()]
    assert rows == validation.rows
    assert [row["step"] for row in rows] == [3, 6]
    assert [len(row["between"]) for row in rows] == [2, 2]
    assert rows[0]["max"]["score"] != rows[1]["max"]["score"], "it learned"
    evaluator = Evaluator(run.model, run.data, FEW, run.seed, run.costs, run.task)
    last, space = rows[-1], run.model.space
    for found in (last["max"], last["min"], *last["between"]):
        expected = evaluator(space.architecture(found["architecture"]))
        assert (found["score"], found["costs"]) == (expected.score, dict(expected.costs))
    modes = [boundary.mode.values for _, boundary in run.boundaries.items()]
    assert [last[end]["architecture"] for end in ("max", "min")] == modes
    for found in last["between"]:
        chosen = space.architecture(found["architecture"]).indices
        assert all(j in options for j, options in zip(chosen, run.allowed, strict=True))


def test_it_needs_no_folder_and_no_failure_of_it_is_heard():
    notes, validation = Notes(), bn.Validation(2, between=0, settings=FEW)
    trained(None, [validation, notes])
    assert [row["step"] for row in validation.rows] == [2, 4, 6]
    assert len(notes.of("step")) == STEPS


@pytest.mark.parametrize("numbers", [(0, 1), (1, -1)])
def test_numbers_that_mean_nothing_are_refused(numbers):
    with pytest.raises(ArgumentError, match="every is 1 or more and between is 0 or more"):
        bn.Validation(*numbers)


def test_the_report_has_the_scores_and_their_mean_between(watched, tmp_path):
    run, validation = watched
    drawn = figures(read_run(run.folder.path))
    rows = validation.rows
    assert drawn["validation"]["steps"] == [3, 6]
    for role in ("max", "min"):
        expected = [pytest.approx(row[role]["score"], rel=1e-3) for row in rows]
        assert drawn["validation"][f"score_{role}"] == [expected, expected]
    means = [pytest.approx(sum(n["score"] for n in row["between"]) / 2, rel=1e-3) for row in rows]
    assert drawn["validation"]["score_random"] == [means, means]
    assert drawn["metric"]["name"] == "accuracy", "before there is a search, too"


def test_a_panel_of_the_report_draws_them(page, watched, tmp_path):  # noqa: F811
    path = tmp_path / "report.html"
    path.write_text(render(read_run(watched[0].folder.path)))
    page.goto(path.as_uri())
    page.wait_for_selector("#training svg path.smooth")
    figure = page.locator("#training figure", has=page.locator("h3", has_text="Validation"))
    assert figure.locator("path.smooth").count() == 3
    assert "%" in figure.locator(".readout").inner_text()
