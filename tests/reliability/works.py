"""The table of works that are stopped and go on: a new one joins by adding a line.

A work begins in a folder that is not there, or goes on with what is, and gives what came of it. It
is told how often it was begun before, for what may differ from one process to the next.
"""

import contextlib
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests import test_extension, test_from_trained, test_measure, test_torch_data, test_torchvision
from tests.costs import own_cost
from tests.extension.people import people
from tests.extension.ranking import Ages
from tests.latency import Fake, registered
from tests.reliability import tiny
from tests.small import COST_RANGE, STAGES, STEM, digest, few_digits, files, mobilenet
from tests.spaces import seeded
from tests.test_recipe import VALUES, Net
from tests.test_search_again import Top3

import boundnas as bn
from boundnas import models
from boundnas.cost import MACs
from boundnas.engine.interruption import Interrupted
from boundnas.latency import measure

FEW = bn.SearchSettings(initial=5, rounds=1, crossovers=2, mutations=2, calibration_images=64)
WORKERS = (0, 1, 2)
"""Processes that read samples when a work is begun for the first, second and third time."""


RECIPES = {
    "averaged weights": {"ema": 0.3},
    "bfloat16": {"precision": "bf16"},
    "a batch in parts": {"accumulate": 2},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "all at once": {"accumulate": 2, "mixup": 0.4, "cutmix": 1.0, "ema": 0.9},
}


def fit(model, data, folder, cost_range, **options):
    """Train a few steps, with checkpoints between."""
    settings = {"steps": 7, "batch_size": 8, "checkpoint_every": 2}
    settings |= {k: options.pop(k) for k in {*options} & {*bn.TrainSettings.model_fields}}
    given = {"cost_range": cost_range, "settings": bn.TrainSettings(**settings), **options}
    return bn.fit(model, data, folder=folder, **given)


def told(run):
    """What a training came to in memory."""
    largest = run.trained and (run.trained.before, run.trained.after)
    return digest(run.model), run.metrics, run.trajectory, largest


def trained(folder, _, **options):
    return told(fit(mobilenet(), few_digits(), folder, COST_RANGE, **options))


def dropped(folder, _):
    """With dropout and drop-connect, shuffled over several epochs."""
    chances = {"dropout": 0.2, "drop_connect": 0.2, "in_channels": 1, "image_size": 8}
    model = seeded(partial(models.MobileNet, STEM, STAGES, 8, **chances))
    return told(fit(model, few_digits(), folder, COST_RANGE, batch_size=64, start_std=0.3))


def family(name, folder, _):
    """The same in the whole space of a family."""
    chances = {"dropout": 0.2, "drop_connect": 0.2, "in_channels": 1, "last_width": 16}
    model = seeded(partial(models.paper_space, name, 0.125, 8, **chances))
    smallest, largest = MACs(model).reach
    middle = (smallest + (largest - smallest) / 4, smallest + (largest - smallest) / 2)
    options = {"batch_size": 16, "start_std": 0.3, "learning_rate": 0.02}
    options |= {"steps": 40, "checkpoint_every": 13}
    return told(fit(model, few_digits(), folder, middle, **options))


def recipe(options, folder, _):
    return told(fit(seeded(Net), few_digits(), folder, (2e3, 4e3), **options))


def values(optimizer, schedule, folder, _):
    given = {"optimizer": optimizer, "schedule": schedule}
    return told(fit(seeded(Net), few_digits(), folder, (2e3, 4e3), **given))


def dataset(folder, number):
    train = test_torch_data.noisy(test_torch_data.GENERATORS["all"])
    data = test_torch_data.made(train, workers=WORKERS[number % 3])
    return told(fit(test_torch_data.net(data), data, folder, (40, 80)))


def transforms(folder, number):
    of = test_torchvision
    some = [*of.RANDOM["crop and mirror"], *of.RANDOM["colours"], of.v2.ToImage(), of.FLOATS]
    data = of.made(of.v2.Compose(some), workers=WORKERS[number % 3])
    return told(fit(of.net(data), data, folder, of.COST_RANGE))


def extension(folder, number):
    data = people(WORKERS[number % 3])
    model = seeded(partial(test_extension.Net, data.example))
    run = fit(model, data, folder, (60, 250), task=Ages())
    return told(run), bn.search(run, FEW).to_json()


def from_trained(folder, _):
    model = bn.elasticize(seeded(test_from_trained.plain), torch.zeros(1, 1, 8, 8))
    if next(folder.glob("checkpoints/step-*"), None):
        with torch.no_grad():
            next(model.parameters()).zero_()  # the checkpoint replaces them
    return told(fit(model, test_from_trained.unmoved(), folder, test_from_trained.WIDE))


def validated(folder, _):
    validation = bn.Validation(1, between=1, settings=FEW)
    return trained(folder, 0, observers=[validation]), validation.rows


def of_ones_own(folder, _):
    model = mobilenet()
    energy = own_cost.Energy(model)
    smallest, largest = energy.reach
    run = fit(model, few_digits(), folder, (1.2 * smallest, 0.8 * largest), cost=energy, steps=3)
    return told(run), bn.search(run, FEW).to_json()


def searched(folder, _, task=None, **options):
    run = fit(mobilenet(), few_digits(), folder, COST_RANGE, steps=2)
    return bn.search(run, FEW.model_copy(update=options), task=task).to_json()


@cache
def found():
    """The files of a run whose front has networks to export."""
    with TemporaryDirectory() as place:
        searched(Path(place, "run"), 0, bounds="whole")
        return files(Path(place, "run"))


def exported(folder, _):
    for name, content in {} if folder.exists() else found().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    run = bn.open(folder, model=mobilenet(), data=few_digits())
    return [path.name for path in bn.export_front(run, formats=["pt2", "safetensors"])]


def measured(folder, _):
    folder.mkdir(exist_ok=True)
    path = folder / "latency.json"
    if path.exists():  # nothing is measured over a table; its journal may be there for a moment yet
        path.with_name("latency.json.journal").unlink(missing_ok=True)
        return bn.cost.LatencyTable.read(path)
    with registered(Fake):
        return measure(seeded(test_measure.Small), path, runtime="fake", minutes=0.0018)


def command(folder, _):
    tiny.configure(folder)
    with contextlib.chdir(folder):
        try:
            tiny.run()
        except SystemExit as stop:
            if stop.code:
                raise Interrupted(stop.code - 128) from None


WORKS = {
    "a training": trained,
    "a training of one boundary": partial(trained, learn="max"),
    "a training of the other": partial(trained, learn="min"),
    "a training of none": partial(trained, learn="none"),
    **{f"a training with {name}": partial(recipe, options) for name, options in RECIPES.items()},
    **{f"a training by {name}": partial(values, *pair) for name, pair in VALUES.items()},
    "a training with dropout": dropped,
    "a training of a Dataset, read by any number of workers": dataset,
    "a training with random transforms, likewise": transforms,
    "a task and data of one's own": extension,
    "a training from trained weights": from_trained,
    "a training that is validated": validated,
    "a cost of one's own": of_ones_own,
    "a search": searched,
    "a search that screens": partial(searched, screen=0.25, initial=12),
    "a search by another metric": partial(searched, task=Top3()),
    "a search by another method": partial(searched, method="nsga2"),
    "an export": exported,
    "a measurement": measured,
    "the command": command,
}
"""What takes a fraction of a second."""

FAMILIES = {f"a training of {name}": partial(family, name) for name in models.FAMILIES}
"""What takes longer."""
