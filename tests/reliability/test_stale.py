"""Row 15: nothing stale is believed: edits are refused or set aside by name, or change nothing."""

import json
import logging
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.reliability import tiny
from tests.small import COST_RANGE, files, mobilenet

from boundnas import SearchSettings, TrainSettings, fit, search
from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.cost import Budget, Parameters
from boundnas.data import InMemory, digits
from boundnas.errors import RunError
from boundnas.fit.run import Run
from boundnas.report.records import read_run
from boundnas.store.files import canonical_json
from boundnas.store.folder import RunFolder

FRONT, JOURNAL = "front.json", "search/evaluations.jsonl"
LOGS = ("metrics.jsonl", "boundaries.jsonl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A job with its trained run and front, all in its folder, and the files of another run."""
    path = tmp_path_factory.mktemp("stale")
    (path / "run.yaml").write_text(tiny.text())
    (path / "other.yaml").write_text(tiny.text().replace("name: tiny", "name: other\nseed: 1"))
    other, _ = pipeline.run(read_config(path / "other.yaml"), path)
    with pipeline.working(read_config(path / "run.yaml"), path / "tiny") as (job, folder):
        trained = job.train(folder)
        front = job.search(trained).to_json()
        yield job, trained, front, files(other.path)


@pytest.fixture(autouse=True)
def _put_back(request):
    """Every test begins with the folders as they were made."""
    made = [request.getfixturevalue(n) for n in ("runs", "trained") if n in request.fixturenames]
    folders = [run.folder.path for parts in made for run in parts if isinstance(run, Run)]
    held = [files(folder) for folder in folders]
    yield
    for folder, content in zip(folders, held, strict=True):
        restore(folder, content)


def restore(folder, held):
    for name in files(folder).keys() - held.keys():
        (folder / name).unlink()
    for name, content in held.items():
        (folder / name).write_bytes(content)


def leaf(value):
    """Another value in its place."""
    if isinstance(value, bool) or value is None:
        return int(not value)
    if isinstance(value, str):
        return value + "x"
    return value + 1 if isinstance(value, int) else (1 + value) / 3


def edits(value):
    """Every way to change one field, or leave it out, double it or turn the order round."""
    if not isinstance(value, dict | list):
        yield leaf(value)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        for other in edits(inner):
            changed = deepcopy(value)
            changed[key] = other
            yield changed
        less = deepcopy(value)
        del less[key]
        yield less
    if isinstance(value, list) and value:
        yield [*value, value[-1]]
        if len(value) > 1:
            yield value[::-1]


def edited_json(held, other):
    """A file of one JSON value: each field changed, cut, that of another run, parts of it."""
    for changed in edits(json.loads(held)):
        yield canonical_json(changed).encode()
    yield from (held[:size] for size in range(0, len(held) - 1, 97))
    yield other
    mixed, own = json.loads(other), json.loads(held)
    for name in own if isinstance(own, dict) else ():
        yield canonical_json(own | {name: mixed[name]}).encode()


def edited_lines(held, other):
    """A file of rows: each field changed; rows left out, doubled, moved, of another run; cut."""
    lines, others = (each.splitlines(keepends=True) for each in (held, other))
    for number, line in enumerate(lines):
        for changed in edits(json.loads(line)):
            text = json.dumps(changed).encode() + b"\n"
            yield b"".join([*lines[:number], text, *lines[number + 1 :]])
        yield b"".join([*lines[:number], *lines[number + 1 :]])
        yield b"".join([*lines[: number + 1], *lines[number:]])
        if number < len(others):
            yield b"".join([*lines[:number], others[number], *lines[number + 1 :]])
        if number:
            swapped = [*lines[: number - 1], line, lines[number - 1], *lines[number + 1 :]]
            yield b"".join(swapped)
    yield from (held[:size] for size in range(0, len(held), 97))
    yield other
    yield b"".join([lines[0], *others[1:]])


def verdict(work, right):
    """How it ended: refused, right, or wrong without a word."""
    try:
        return "right" if work() == right else "BELIEVED"
    except RunError as error:
        return "refused" if ".json" in str(error) else f"does not name the file: {error}"


@pytest.mark.parametrize("name", [FRONT, JOURNAL, "bounds.json", "space.json", *LOGS])
def test_no_edited_record_is_believed(name, runs, full, figure):
    job, trained, front, other = runs
    folder = trained.folder.path
    held, shown = files(folder), read_run(folder)
    edited = edited_lines if name.endswith(".jsonl") else edited_json
    cases = list(edited(held[name], other[name]))
    ends = []
    for content in cases if full else cases[:: len(cases) // 20]:
        if content == held[name]:  # as of two runs with one space
            continue
        (folder / name).write_bytes(content)
        ends.append(verdict(partial(read_run, folder), shown))
        if name == JOURNAL:
            (folder / FRONT).unlink()
        if name in (FRONT, JOURNAL):
            ends.append(verdict(lambda: job.search(trained).to_json(), front))
        restore(folder, held)
    assert set(ends) <= {"right", "refused"}
    assert ends.count("refused") > len(ends) / 2
    figure(f"{name}: {len(ends)} uses of edited ones, {ends.count('refused')} refused")


def test_no_file_of_another_run_is_believed(runs, full, figure):
    job, trained, front, other = runs
    folder = trained.folder.path
    held, shown = files(folder), read_run(folder)
    names = [n for n in held if n in other and n not in ("config.yaml", ".lock", "report.html")]
    ends = []
    for name in names if full else (JOURNAL, "metrics.jsonl", "bounds.json", "space.json"):
        (folder / name).write_bytes(other[name])
        ends.append(verdict(lambda: job.search(job.train(trained.folder)).to_json(), front))
        if ends[-1] == "right":
            assert verdict(lambda: read_run(folder), shown) != "BELIEVED", name
        restore(folder, held)
    assert set(ends) <= {"right", "refused"}
    figure(f"{len(ends)} files of another run, {ends.count('refused')} refused, the others renewed")


def held_digits():
    data = digits()
    return replace(
        data,
        train=InMemory(*data.train.take(torch.arange(80))),
        validation=InMemory(*data.validation.take(torch.arange(60))),
        test=InMemory(*data.test.take(torch.arange(60))),
    )


def with_image(split, number):
    data = held_digits()
    getattr(data, split).images[number, 0, 3, 3] += 1
    return {"data": data}


def with_label(split, number):
    data = held_digits()
    labels = getattr(data, split).labels
    labels[number] = (labels[number] + 1) % 10
    return {"data": data}


def without_image(split):
    data = held_digits()
    source = getattr(data, split)
    return {"data": replace(data, **{split: InMemory(source.images[:-1], source.labels[:-1])})}


def frozen():
    model = mobilenet()
    model.classifier.requires_grad_(False)
    return {"model": model}


FIT = TrainSettings(steps=3, batch_size=16)
SEARCH = SearchSettings(initial=4, rounds=1, crossovers=2, mutations=2, calibration_images=64)

REFUSED = {
    "an image": ("images of data.train", partial(with_image, "train", 79)),
    "a label": ("labels of data.train", partial(with_label, "train", 79)),
    "an image less": ("number of data.train", partial(without_image, "train")),
    "names of classes": (
        "data.classes", lambda: {"data": replace(held_digits(), classes=tuple("abcdefghij"))},
    ),
    "flips": ("data.flip", lambda: {"data": replace(held_digits(), flip=True)}),
    "padding": ("data.padding", lambda: {"data": replace(held_digits(), padding=2)}),
    "mean": ("data.mean", lambda: {"data": replace(held_digits(), mean=(0.3,))}),
    "deviation": ("data.std", lambda: {"data": replace(held_digits(), std=(0.3,))}),
    "seed": ("seed", lambda: {"seed": 1}),
    "another range": ("cost_range", lambda: {"cost_range": (12e3, 39e3)}),
    "another cost": (
        "cost", lambda: {"cost": Parameters(mobilenet()), "cost_range": (500, 1000)},
    ),
    "another model": ("module last.conv", lambda: {"model": mobilenet(last_width=9)}),
    "a frozen layer": ("shape of classifier.weight", frozen),
    "steps": ("train.steps", lambda: {"settings": TrainSettings(steps=4, batch_size=16)}),
    "momentum": (
        "train.momentum",
        lambda: {"settings": TrainSettings(steps=3, batch_size=16, momentum=0.5)},
    ),
}  # fmt: skip
"""What makes it another training, and what the error names first."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run made from Python, and its front."""
    folder = RunFolder.create(tmp_path_factory.mktemp("python") / "run", "name: run\n")
    run = again(folder)
    return run, search(run, SEARCH).to_json()


def again(folder, **changed):
    parts = {
        "model": mobilenet(), "data": held_digits(), "cost_range": COST_RANGE, "settings": FIT,
        **changed,
    }  # fmt: skip
    return fit(parts.pop("model"), parts.pop("data"), folder=folder, **parts)


@pytest.mark.parametrize(("name", "changed"), REFUSED.values(), ids=REFUSED)
def test_another_training_is_refused_by_name_and_nothing_changes(name, changed, trained):
    folder = trained[0].folder
    held = files(folder.path)
    with pytest.raises(RunError, match=f"of step 3 is of a run with {name} = .*this one has"):
        again(folder, **changed())
    assert files(folder.path) == held


IRRELEVANT = {
    "initial weights, which the checkpoint replaces": (
        lambda: {"model": with_other_weights(mobilenet())}
    ),
    "what it keeps of layers": (
        lambda: {"settings": FIT.model_copy(update={"gradient_checkpointing": True})}
    ),
    "how often it is saved": (lambda: {"settings": FIT.model_copy(update={"checkpoint_every": 1})}),
    "the name of the data": lambda: {"data": replace(held_digits(), name="other")},
    "an image for the search": partial(with_image, "validation", 0),
    "a label of the test": partial(with_label, "test", 0),
    "an image less of the test": partial(without_image, "test"),
}
"""What training does not see."""


def with_other_weights(model):
    with torch.no_grad():
        model.classifier.weight.add_(1)
    return model


@pytest.mark.parametrize("changed", IRRELEVANT.values(), ids=IRRELEVANT)
def test_a_trained_run_survives_a_change_of_what_training_does_not_see(changed, trained):
    run = trained[0]
    found = again(run.folder, **changed())
    for value, before in zip(
        found.model.state_dict().values(), run.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, before)


def changed_weights(run):
    with_other_weights(run.model)
    return run


SET_ASIDE = {
    "weights": ("weights", changed_weights, {}),
    "an image": ("images of data.validation", with_image, {"split": "validation"}),
    "a label": ("labels of data.validation", with_label, {"split": "validation"}),
    "calibration images": ("search.calibration_images", None, {"calibration_images": 32}),
    "batch size": ("search.batch_size", None, {"batch_size": 32}),
}
"""What makes another measurement, and what is said to differ."""


@pytest.mark.parametrize(("name", "changed", "how"), SET_ASIDE.values(), ids=SET_ASIDE)
def test_measurements_of_other_conditions_never_answer(name, changed, how, trained, caplog):
    folder = trained[0].folder
    held = files(folder.path)
    settings = SEARCH
    run = again(folder)
    if changed is None:
        settings = SEARCH.model_copy(update=how)
    elif changed is changed_weights:
        run = changed(run)
    else:
        run = replace(run, data=changed(how["split"], 0)["data"])
    with caplog.at_level(logging.WARNING):
        found = search(run, settings).to_json()
    assert found == search(replace(run, folder=None), settings).to_json()
    (said,) = [m for m in caplog.messages if "kept as evaluations" in m]
    assert f"was measured with {name} = " in said
    assert said.endswith("it is kept as evaluations-1.jsonl and the search measures anew")
    assert (folder.path / "search/evaluations-1.jsonl").read_bytes() == held[JOURNAL]


@pytest.mark.parametrize(
    "plan", [{"initial": 3}, {"rounds": 2}, {"mutations": 3}, {"bounds": "whole"}], ids=str
)
def test_a_search_that_is_only_planned_otherwise_keeps_its_measurements(plan, trained, caplog):
    run, _ = trained
    held = files(run.folder.path)
    settings = SEARCH.model_copy(update=plan)
    found = search(run, settings).to_json()
    assert found == search(replace(run, folder=None), settings).to_json()
    assert (run.folder.path / JOURNAL).read_bytes().startswith(held[JOURNAL])
    assert "kept as evaluations" not in caplog.text


PLANS = {
    "search.initial": {"initial": 4},
    "search.calibration_images": {"calibration_images": 32},
    "search.method": {"method": "nsga2"},
}


@pytest.mark.parametrize(("name", "plan"), PLANS.items(), ids=PLANS)
def test_settings_of_the_search_that_are_edited_in_a_run_are_honoured(name, plan, runs, caplog):
    job, trained, *_ = runs
    folder = trained.folder.path
    held = files(folder)
    settings = job.config.search.model_copy(update=plan)
    edited = replace(job, config=job.config.model_copy(update={"search": settings}))
    found = edited.search(trained).to_json()
    assert found == search(replace(trained, folder=None), settings).to_json()
    assert f"was found with {name} = " in caplog.text
    assert (folder / "front-1.json").read_bytes() == held[FRONT]


def test_a_range_edited_after_training_is_refused(runs):
    job, trained, *_ = runs
    ((cost, (lower, _)),) = job.budgets
    edited = replace(job, budgets=(Budget(cost, (lower, 30e3)),))
    held = files(trained.folder.path)
    with pytest.raises(RunError, match=r"cost_range = \(12000.0, 40000.0\), this one has \(12000"):
        edited.train(trained.folder)
    assert files(trained.folder.path) == held


def test_a_test_image_that_is_gone_renews_the_front_and_keeps_the_training(runs, caplog):
    job, trained, *_ = runs
    folder, held = trained.folder.path, files(trained.folder.path)
    test = job.data.test
    images, labels = test.take(torch.arange(len(test) - 1))
    data = replace(job.data, test=InMemory(images, labels))
    changed = replace(job, data=data)
    found = changed.search(changed.train(trained.folder)).to_json()
    assert found == search(replace(trained, data=data, folder=None), job.config.search).to_json()
    assert "was found with number of data.test = 359, this one has 358" in caplog.text
    assert (folder / JOURNAL).read_bytes() == held[JOURNAL]
