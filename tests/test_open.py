"""A run is opened from its folder: the same bytes as in the process that trained, or refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.small import COST_RANGE, digest, few_digits, files, mobilenet
from tests.spaces import seeded
from tests.test_recipe import Net
from tests.test_studies import LOWER, SPACE, UPPER

import boundnas as bn
from boundnas import cost as costs
from boundnas.app import pipeline
from boundnas.config import RunConfig
from boundnas.errors import ArgumentError, CostError, DataError, RunError
from boundnas.settings import CostSettings
from boundnas.store.vouched import vouched

TRAIN = bn.TrainSettings(steps=4, batch_size=16, checkpoint_every=3)
SEARCH = bn.SearchSettings(initial=6, rounds=1, crossovers=2, mutations=2, calibration_images=64)


def AdamW(groups):  # noqa: N802
    return torch.optim.AdamW(groups, lr=1e-3)


class Own(torch.optim.SGD):
    """Its code is known, as that of a model's own layers is."""

    def __init__(self, groups):
        super().__init__(groups, lr=0.05)


def both(model):
    return [costs.MACs(model), costs.Parameters(model)]


PRIOR = [{"dimensions": "*.depth", "smallest": 2}]
KINDS = {
    "as usual": {},
    "another seed": {"seed": 3},
    "a prior": {"settings": bn.TrainSettings(steps=4, batch_size=16, prior=PRIOR)},
    "no boundary learned": {"settings": TRAIN.model_copy(update={"learn": "none"})},
    "boundaries from the cost range": {
        "settings": TRAIN.model_copy(update={"learn": "none", "bounds": "from_cost"}),
        "cost_range": (20e3, 30e3),
    },
    "another optimizer": {"optimizer": AdamW},
    "an optimizer of one's own": {"optimizer": Own},
    "another task": {"task": bn.tasks.Classification(label_smoothing=0.1)},
    "two costs": {"cost": both, "cost_range": [COST_RANGE, (500.0, 1100.0)]},
    "two costs the other way": {
        "cost": lambda model: both(model)[::-1],
        "cost_range": [(500.0, 1100.0), COST_RANGE],
    },
}


def parts(model, kind):
    """What is handed in beside model and data, to fit and to open."""
    given = {"settings": TRAIN, "cost_range": COST_RANGE, **KINDS[kind]}
    if "cost" in given:
        given["cost"] = given["cost"](model)
    return given, {k: v for k, v in given.items() if k in ("task", "cost")}


def trained(folder, kind="as usual"):
    model = mobilenet()
    return bn.fit(model, few_digits(), folder=folder, **parts(model, kind)[0])


def opened(folder, kind="as usual"):
    model = mobilenet()
    with torch.no_grad():
        for parameter in model.parameters():  # initial weights do not matter
            parameter.fill_(7.0)
    return bn.open(folder, model=model, data=few_digits(), **parts(model, kind)[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run made from Python; not to be changed."""
    return trained(tmp_path_factory.mktemp("open") / "run")


def described(run):
    """All of a run but its objects."""
    policies = [policy for _, policy in run.boundaries.items()]
    settings = run.settings.model_copy(update={"checkpoint_every": 1})
    return {
        "state": digest(run.model, *policies),
        "task": {k: v for k, v in vars(run.task).items() if not torch.is_tensor(v)},
        "rest": (run.ranges, settings, run.seed, run.metrics, run.trajectory),
        "modes": [m.training for m in run.model.modules()],
        "allowed": run.allowed,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_made_from_python_is_opened_as_it_was_trained(kind, tmp_path):
    first = trained(tmp_path / "run", kind)
    before = files(tmp_path / "run")
    again = opened(str(tmp_path / "run"), kind)
    assert described(again) == described(first)
    assert files(tmp_path / "run") == before, "opening writes nothing"


def test_an_opened_run_is_searched_with_the_same_bytes(tmp_path):
    here, there = trained(tmp_path / "a"), trained(tmp_path / "b")
    front, again = bn.search(here, SEARCH), bn.search(opened(there.folder.path), SEARCH)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    bn.search(opened(tmp_path / "a"), SEARCH)  # from the journal
    assert files(tmp_path / "a") == files(tmp_path / "b")
    arch, other = (f.best(macs=4e4).arch for f in (front, again))
    assert digest(bn.extract(here.model, arch)) == digest(
        bn.extract(opened(tmp_path / "b").model, other)
    )


@pytest.mark.parametrize("kind", ["as usual", "two costs the other way"])
def test_a_run_knows_its_front(kind, tmp_path):
    first = trained(tmp_path / "run", kind)
    with pytest.raises(RunError, match=r"was not searched yet; call boundnas.search\(run\)"):
        _ = first.front
    front = bn.search(first, SEARCH)
    assert first.front is front
    before = files(tmp_path / "run")
    again = opened(tmp_path / "run", kind)
    assert again.front.to_json() == front.to_json()
    assert list(again.front.ranges) == list(front.ranges), "in the order of the costs"
    assert again.front is again.front
    arch, other = (run.front.networks[0].arch for run in (first, again))
    assert digest(bn.extract(again.model, other)) == digest(bn.extract(first.model, arch))
    assert files(tmp_path / "run") == before


def test_its_front_is_that_of_its_last_search_of_whatever_range(tmp_path):
    run = trained(tmp_path / "run")
    bn.search(run, SEARCH)
    whole = SEARCH.model_copy(update={"bounds": "whole"})
    last = bn.search(run, whole, cost=costs.Parameters(run.model), cost_range=(500.0, 1000.0))
    assert run.front is last
    assert opened(tmp_path / "run").front.to_json() == last.to_json()


def test_a_front_of_other_weights_is_not_its_front(tmp_path):
    for name, kind in (("run", "as usual"), ("other", "another seed")):
        bn.search(trained(tmp_path / name, kind), SEARCH)
    shutil.copy(tmp_path / "other" / "front.json", tmp_path / "run" / "front.json")
    with pytest.raises(RunError, match=r"front.json: was found with weights = .*; search the run"):
        _ = opened(tmp_path / "run").front


@pytest.mark.parametrize("searched", [True, False])
def test_a_front_of_weights_that_were_written_since_is_not_its_front(searched, tmp_path):
    run = trained(tmp_path / "run")
    front = bn.search(run, SEARCH)
    run = run if searched else opened(tmp_path / "run")
    assert run.front.to_json() == front.to_json()
    weight = next(run.model.parameters())
    weight.data.mul_(2)  # which raises no version
    with pytest.raises(RunError, match="other weights than when this run was searched"):
        _ = run.front
    weight.data.mul_(0.5)
    assert run.front.to_json() == front.to_json()


def config(**more):
    first = CostSettings(lower=LOWER, upper=UPPER)
    return RunConfig(
        name="run",
        cost=[first],
        train=TRAIN,
        search=SEARCH,
        space=SPACE,
        export={"formats": []},
        **more,
    )


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A folder of a run of a configuration, and what was searched in it; not to be changed."""
    root = tmp_path_factory.mktemp("configured")
    return pipeline.run(config(seed=2), root)


def test_a_run_of_a_configuration_is_opened_from_its_folder_alone(configured):
    folder, front = configured
    before = files(folder.path)
    run = bn.open(folder.path)
    assert (run.seed, run.settings, run.searching) == (2, TRAIN, SEARCH)
    assert run.front.to_json() == front.to_json()
    again = bn.search(run)
    assert files(folder.path) == before, "searched as its configuration says"
    assert again.to_json() == front.to_json()
    arch = again.best(macs=1e4).arch
    assert digest(bn.extract(run.model, arch))


def test_another_process_opens_it_too(configured):
    folder, front = configured
    code = f"import boundnas as bn; print(bn.search(bn.open({str(folder.path)!r})).to_json())"
    code = "import torch; torch.set_num_threads(1); " + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(front.to_json())


OTHER = {
    "model": (lambda: {"model": mobilenet(last_width=16)}, RunError, "holds a run with"),
    "another class of model": (lambda: {"model": seeded(Net)}, RunError, "holds a run with"),
    "data": (
        lambda: {"data": bn.data.digits()},
        RunError,
        "number of data.train = 80, this one has",
    ),
    "task": (
        lambda: {"task": bn.tasks.Classification(label_smoothing=0.2)},
        RunError,
        "task = Classification",
    ),
    "cost": (
        lambda: {"cost": costs.Parameters},
        RunError,
        "cost = MACs macs, this one has Parameters parameters",
    ),
    "number of costs": (
        lambda: {"cost": both},
        CostError,
        "trained for macs; hand in these by cost=, in this order, found macs, parameters",
    ),
    "cost of another model": (
        lambda: {"cost": lambda _: costs.MACs(seeded(Net))},
        CostError,
        "is of another model",
    ),
    "another task": (lambda: {"task": bn.tasks.Regression()}, DataError, "classes|targets"),
    "only a model": (lambda: {"data": None}, ArgumentError, "found model; hand in model and data"),
    "only a task": (
        lambda: {"model": None, "data": None, "task": bn.tasks.Regression()},
        ArgumentError,
        "found task; hand in",
    ),
    "nothing": (lambda: {"model": None, "data": None}, ArgumentError, "was made from Python"),
}


@pytest.mark.parametrize("what", OTHER)
def test_what_does_not_fit_the_record_is_refused_by_name(what, run):
    make, error, message = OTHER[what]
    given = {"model": mobilenet(), "data": few_digits(), **make()}
    if callable(given.get("cost")):
        given["cost"] = given["cost"](given["model"])
    before = None if given["model"] is None else digest(given["model"])
    with pytest.raises(error, match=message):
        bn.open(run.folder.path, **given)
    assert given["model"] is None or digest(given["model"]) == before, "nothing was loaded"


@pytest.fixture
def copied(run, configured, tmp_path):
    """Copies of both folders, to be damaged, each with what opens it."""

    def of_python(folder):
        return bn.open(folder, model=mobilenet(), data=few_digits())

    made = (("made", run.folder.path, of_python), ("run", configured[0].path, bn.open))
    return {
        name: (Path(shutil.copytree(folder, tmp_path / name)), open_it)
        for name, folder, open_it in made
    }


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("made", "call boundnas.fit as before, with folder='.*made'"),
        ("run", "boundnas search .*run"),
    ],
)
def test_an_unfinished_run_is_refused_with_what_finishes_it(name, how, copied):
    folder, open_it = copied[name]
    (folder / "bounds.json").unlink()  # written last of all
    with pytest.raises(RunError, match=f"training has not ended.*; finish it first: {how}"):
        open_it(folder)


def no_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints")


def only_an_older_one(folder):
    shutil.rmtree(folder / "checkpoints" / "step-00000004")


def those_of_another_run(folder):
    no_checkpoint(folder)
    path = folder.parent / "other"
    trained(path, "another task")
    shutil.copytree(path / "checkpoints", folder / "checkpoints")


def other_weights(folder):
    bounds = json.loads((folder / "bounds.json").read_text())
    text = json.dumps(vouched({k: v for k, v in bounds.items() if k != "sum"} | {"weights": "0"}))
    (folder / "bounds.json").write_text(text)


def rows_lost(folder):
    lines = (folder / "boundaries.jsonl").read_text().splitlines(keepends=True)
    (folder / "boundaries.jsonl").write_text("".join(lines[:-1]))


LOST = "does not hold the weights that the training ended with by bounds.json"
DAMAGES = {
    no_checkpoint: LOST,
    only_an_older_one: LOST,
    those_of_another_run: "none of its checkpoints is whole and fits the logs",
    other_weights: LOST,
    rows_lost: "boundaries.jsonl: holds 4 rows .* where 5 were written",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_that_is_not_whole_is_refused(damage, copied):
    folder, model = copied["made"][0], mobilenet()
    damage(folder)
    with pytest.raises(RunError, match=DAMAGES[damage]):
        bn.open(folder, model=model, data=few_digits())
    if damage is not other_weights:  # which are known once they are loaded
        assert digest(model) == digest(mobilenet()), "nothing was loaded"


def test_a_configuration_that_was_edited_is_refused(copied):
    folder, open_it = copied["run"]
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("seed: 2", "seed: 1"))
    with pytest.raises(RunError, match="holds a run with seed = 2, this one has 1"):
        open_it(folder)


def test_no_run_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is missing"):
        bn.open(tmp_path / "none")
