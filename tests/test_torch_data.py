"""Data of any Dataset: what a sample is depends on seed, epoch and index, and on nothing else."""

import os
import random
import signal
from contextlib import nullcontext
from threading import Thread

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from boundnas import Data, Supernet, TrainSettings, elastic, fit, tasks
from boundnas.data import TrainingOrder, batches, data, survey
from boundnas.data.drawn import Drawn, read
from boundnas.errors import DataError
from boundnas.fit.match import check_match

NUMBER = 40


class Rows(Dataset):
    """Five numbers and a class, after what a test does to them."""

    def __init__(self, change=lambda x, y, i: (x, y), number=NUMBER):
        self.change, self.number = change, number

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        return self.change(np.arange(5.0) + i, i % 4, i)


def noisy(draw):
    return Rows(lambda x, y, i: (x + draw(), y))


GENERATORS = {
    "random": random.random,
    "numpy": lambda: np.random.randn(5),
    "torch": lambda: torch.rand(5).numpy(),
    "all": lambda: random.random() + np.random.rand(5) + torch.rand(()).item(),
}


def made(train, seed=0, **options):
    options = {"plain": Rows(), "test": Rows(number=12)} | options
    if "validation" not in options:
        options["validation_fraction"] = 0.25
    return Data(train, seed=seed, **options)


def stream(found, first=0, last=8, part=slice(None), seed=0):
    """Bytes of the batches of some steps."""
    order = TrainingOrder(len(found.train), 8, seed)
    drawn = found.training(order, first, last, part)
    return [(x.numpy().tobytes(), y.numpy().tobytes()) for x, y in drawn]


@pytest.mark.parametrize("name", GENERATORS)
def test_workers_resumed_runs_and_ranks_see_the_same_samples(name):
    train = noisy(GENERATORS[name])
    found = made(train)
    steps = stream(found)
    assert len(set(steps)) == 8
    assert stream(made(train, workers=2)) == steps
    assert stream(found, first=5) == steps[5:]
    assert stream(made(train, workers=1), first=5) == steps[5:]
    halves = [stream(found, part=slice(4 * r, 4 * r + 4)) for r in range(2)]
    assert [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*halves, strict=True)] == steps
    assert stream(found, seed=1) != steps


def test_a_sample_is_drawn_anew_in_every_epoch_and_apart_from_others():
    found = made(noisy(GENERATORS["all"]), validation=Rows(number=8))
    order = TrainingOrder(NUMBER, NUMBER, 0)
    seen = []
    for step, (x, _) in enumerate(found.training(order, 0, 3, slice(None))):
        place = order.indices(step)
        noise = torch.empty(NUMBER, 5)
        noise[place] = x - (torch.arange(5.0) + place[:, None])
        seen.append(noise)
    values = torch.stack(seen)[:, :, 0].flatten().tolist()
    assert len({round(v, 4) for v in values}) > 100  # of 120 draws


def test_reading_leaves_global_generators_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    found = made(noisy(GENERATORS["all"]))
    stream(found)
    found.test.take(torch.arange(3))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("workers", [0, 2])
def test_splits_are_read_without_random_transforms(kept, workers, monkeypatch):
    monkeypatch.setattr(data, "KEPT", kept)
    monkeypatch.setattr(data, "CHUNK", 3)
    found = made(noisy(GENERATORS["torch"]), workers=workers)
    for split in (found.train, found.validation, found.test):
        for x, y in batches(split, torch.arange(len(split)).flip(0), 4):
            assert torch.equal(x[:, 0].long() % 4, y)
            assert torch.equal(x, torch.arange(5.0) + x[:, :1])
    together = torch.cat([found.train.indices, found.validation.indices]).sort().values
    assert together.tolist() == list(range(NUMBER))
    assert [t.tolist() for t in found.targets("test")] == [[i % 4 for i in range(12)]]


def test_a_validation_split_has_the_same_share_of_each_class_or_is_drawn():
    found = made(Rows(), plain=None)
    counts = torch.cat(list(found.targets("validation"))).bincount()
    assert counts.tolist() == [2, 2, 2, 2]  # a quarter of ten, to even
    assert not torch.equal(made(Rows(), seed=1).validation.indices, found.validation.indices)
    numbers = Rows(lambda x, y, i: (x, float(y)))
    assert len(made(numbers, plain=None, test=numbers).validation) == 10
    given = made(Rows(), plain=None, validation=Rows(number=9))
    assert (len(given.train), len(given.validation)) == (NUMBER, 9)


def test_large_targets_are_read_again(monkeypatch):
    kept = made(Rows(), plain=None)
    expected = [torch.cat(list(kept.targets(s))) for s in ("train", "validation", "test")]
    monkeypatch.setattr(survey, "HELD", 0)
    found = made(Rows(), plain=None, validation=kept_validation(kept))
    assert found.test.found.kept is None
    assert torch.equal(torch.cat(list(found.targets("test"))), expected[2])
    assert torch.equal(torch.cat(list(found.targets("validation"))), expected[1])


def kept_validation(found):
    return TensorDataset(*found.validation.take(torch.arange(len(found.validation))))


def test_a_split_is_read_once_by_several_threads():
    reads = []
    rows = Rows(lambda x, y, i: (reads.append(i), (x, y))[1], number=12)
    found = made(Rows(), test=rows)
    reads.clear()
    threads = [Thread(target=found.test.take, args=(torch.arange(12),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reads) == list(range(12))


def drawing_for_itself():
    generator = np.random.default_rng(0)
    return noisy(lambda: generator.random(5))


def failing(x, y, i):
    raise OSError("the disk is gone")


def at(place, value):
    return lambda x, y, i: value(x, y) if i == place else (x, y)


BAD = {
    "no Dataset": ({"train": 3}, "data: train: a map-style Dataset is needed.*found int"),
    "an iterable": ({"train": iter([])}, "found list_iterator"),
    "nothing": ({"train": []}, "data: train has no samples"),
    "no test samples": ({"test": []}, "data: test has no samples"),
    "no pairs": ({"train": Rows(lambda x, y, i: x)}, "sample 0: a sample is a pair .* a ndarray"),
    "arrays for samples": (
        {"train": (np.zeros((40, 5)), np.zeros(40))},
        "a pair of an input and a target, found a ndarray; all inputs and all targets become sam",
    ),
    "a loader": (
        {"train": DataLoader(Rows(), 8)},
        r"needed, with len\(dataset\) and dataset\[i\], found DataLoader; give loader.dataset",
    ),
    "sparse": (
        {"train": Rows(lambda x, y, i: (torch.eye(3).to_sparse(), y))},
        r"sample 0: its input is torch.float32 \(torch.sparse_coo\) on cpu; give plain numbers",
    ),
    "numbers that are no classes": (
        {"train": Rows(lambda x, y, i: (x, i)), "plain": None},
        "target 0 has 1 sample, and a split needs 2 of each class; whole numbers are taken for cla",
    ),
    "three": ({"train": Rows(lambda x, y, i: (x, y, i))}, "found a tuple of 3"),
    "a failure": (
        {"train": Rows(failing)},
        "sample 0: reading it fails, OSError: the d",
    ),
    "pixels": (
        {"train": Rows(lambda x, y, i: (np.zeros((3, 4, 4), np.uint8), y))},
        "input is uint8, as pixels are; scale it",
    ),
    "a text": (
        {"train": Rows(lambda x, y, i: ("cat", y))},
        "made of tensors .* found a str",
    ),
    "a name": (
        {"train": Rows(lambda x, y, i: (x, "cat"))},
        "target is a number.*found a str",
    ),
    "an odd shape": (
        {"train": Rows(at(7, lambda x, y: (x[:3], y)))},
        r"data: train: sample 7: samples of one batch.*\(5,\).* and float32 of shape \(3,\)",
    ),
    "an odd target": ({"train": Rows(at(9, lambda x, y: (x, 0.5)))}, "found .*int64.*float32"),
    "no number": (
        {"train": Rows(at(11, lambda x, y: (x * np.nan, y)))},
        "data: train: sample 11: its input has 5 numbers that are not finite",
    ),
    "no target": ({"test": Rows(at(3, lambda x, y: (x, np.nan)))}, "found .*int64.* and .*float32"),
    "a missing target": (
        {"train": Rows(lambda x, y, i: (x, np.nan if i == 5 else 0.5))},
        "sample 5: its target has 1 numbers that are not finite",
    ),
    "a generator of its own": (
        {"train": drawing_for_itself()},
        "train: sample 0 is another one when it is read again: .* generator of its own",
    ),
    "random validation": (
        {"train": noisy(random.random), "plain": None},
        "train is random, and the validation split would be carved from it; give plain=",
    ),
    "a random test": ({"test": noisy(random.random)}, "test is random: every network would"),
    "a random plain": ({"plain": noisy(random.random)}, "plain is random"),
    "a shorter plain": ({"plain": Rows(number=39)}, "plain has 39 samples and train 40"),
    "another plain": (
        {"plain": Rows(lambda x, y, i: (x, (i + 1) % 4))},
        "plain has another target than train at sample 0",
    ),
    "another test": (
        {"test": Rows(lambda x, y, i: (x[:4], y))},
        r"test gives inputs of float32 of shape \(4,\), train of float32 of shape \(5,\)",
    ),
    "two validations": (
        {"validation": Rows(), "validation_fraction": 0.1},
        "give validation or validation_fraction, not both",
    ),
    "workers": ({"workers": -1}, "workers must lie in 0 to 256, found -1"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_trained_on_is_refused_by_name(change, message):
    with pytest.raises(DataError, match=message):
        made(**{"train": Rows(), **change})


WHOLE = Rows(lambda x, y, i: ([i, 0], y))


def moved(by, times=1):
    return Rows(lambda x, y, i: (times * x + by, y))


TOLD = {  # of the 40 samples of training, a quarter of which is for validation
    "samples of both": (
        {"test": Rows(number=20)},
        "data: 16 of 20 test samples are training samples too; what is measured on them is no test",
    ),
    "inputs of another scale": (
        {"test": moved(0.5, 10)},
        "data: numbers of test inputs have the mean 216 and the deviation 116, those of train 21.5 "
        "and 11.6; a transform may be missing",
    ),
    "inputs of a smaller scale": (
        {"test": moved(20, 0.01)},
        "data: numbers of test inputs have the mean 20.2 and the deviation 0.116, those of train ",
    ),
    "inputs far away": (
        {"validation": moved(-45.5), "test": moved(0.5)},
        "data: numbers of validation inputs have the mean -24 and the deviation 11.6, those of ",
    ),
    "nothing": ({"test": moved(0.5)}, ""),
    "nothing, of whole numbers": (
        {"train": WHOLE, "test": Rows(lambda x, y, i: ([900, i], y))},
        "",
    ),
}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_splits_share_and_where_their_scale_differs_is_told(name, workers, caplog):
    change, message = TOLD[name]
    made(**{"train": Rows(), "plain": None, **change}, workers=workers)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == bool(message)
    assert not message or said[0].startswith(message)


def test_a_list_of_numbers_is_one_input():
    found = made(Rows(lambda x, y, i: (x.tolist(), y)), plain=None)
    assert torch.equal(found.example, made(Rows(), plain=None).example)


def test_what_a_worker_finds_is_told_as_if_it_were_found_here():
    with pytest.raises(DataError, match=r"^data: train: sample 11: its input has 5 numbers"):
        made(Rows(at(11, lambda x, y: (x * np.nan, y))), workers=2)


CHANGES = {
    "an input": at(3, lambda x, y: (x + 1, y)),
    "a target": at(3, lambda x, y: (x, 0)),
    "a transform": lambda x, y, i: (x + random.random(), y),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_sample_tells_data_apart(name):
    before, after = (
        made(Rows()),
        made(Rows(CHANGES[name]), plain=Rows(CHANGES[name]) if name == "a target" else Rows()),
    )
    assert before.identity("train") == made(Rows()).identity("train")
    assert before.identity("train") != after.identity("train")
    assert before.identity("test") == after.identity("test")
    assert made(Rows(), workers=2).identity("validation") == before.identity("validation")


class Net(Supernet):
    def __init__(self, example, outputs=4):
        super().__init__(example)
        width = self.dimension("width", [4, 8])
        self.hidden, self.head = elastic.Linear(5, width), elastic.Linear(width, outputs)

    def forward(self, x, arch):
        return self.head(self.hidden(x, arch).relu(), arch)


def net(found, kind=Net, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(found.example, **options)


def trained(found, folder=None, steps=9, **options):
    settings = TrainSettings(steps=steps, batch_size=8, checkpoint_every=2, learning_rate=0.01)
    model = net(found)
    return fit(model, found, cost_range=(40, 80), settings=settings, folder=folder, **options)


def ending(x, y, i):
    if torch.utils.data.get_worker_info() is not None and i == 5:
        os._exit(1)
    return x, y


def test_a_worker_that_ends_by_itself_is_told():
    with pytest.raises(DataError, match=r"a process that reads samples ended by itself .*worker"):
        made(Rows(ending), workers=1)


def test_other_plain_samples_tell_data_apart():
    train, plain = noisy(random.random), Rows(lambda x, y, i: (x + (i == 3), y))
    before, after = made(train).identity("train"), made(train, plain=plain).identity("train")
    assert [name for name in before if before[name] != after[name]] == [
        "plain inputs of data.train"
    ]


MISFITS = {
    "another width": (
        {"inputs": (6,)},
        {},
        r"built for inputs of .*\(6,\), those of data",
    ),
    "too few outputs": ({"outputs": 3}, {}, "data: train: the model gives 3 logits, .*0 to 3"),
    "a class too many": ({"outputs": 5}, {}, "no training image of 1 of its 5 classes: 4"),
    "names": (
        {"outputs": 4},
        {"classes": ["a", "b"]},
        r"has 2 classes, .* it gives \(2, 4\)",
    ),
    "another task": (
        {},
        {"task": tasks.MultiLabel()},
        "data: train: a sample has one logit",
    ),
}


@pytest.mark.parametrize(("built", "options", "message"), MISFITS.values(), ids=MISFITS)
def test_data_that_do_not_fit_the_model_are_refused_before_training(built, options, message):
    options = dict(options)
    task = options.pop("task", None)
    found = made(Rows(), plain=None, **options)
    with torch.random.fork_rng(devices=[]):
        model = Wide(built.get("inputs", (5,)), built.get("outputs", 4))
    settings = TrainSettings(steps=1, batch_size=8)
    with pytest.raises(DataError, match=message):
        fit(model, found, cost_range=(40, 80), settings=settings, task=task)


class Wide(Net):
    def forward(self, x, arch):
        return super().forward(x[:, :5], arch)


class Places(Net):
    def forward(self, x, arch):
        return super().forward(x, arch).unflatten(1, (-1, 2))


UNTRAINED = {
    "masks of 0 and 255": (
        lambda i: [0, 255],
        "no training place of 1 of its 2 classes: 1; add images, or leave these classes out; 255 "
        "counts nowhere, give class numbers",
    ),
    "a class that is nowhere": (
        lambda i: [1, 1],
        "no training place of 1 of its 2 classes: 0; add",
    ),
    "all of them": (lambda i: [i % 2, 255], ""),
}


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_class_that_no_training_place_has_is_refused(name):
    target, message = UNTRAINED[name]
    rows = Rows(lambda x, y, i: (x, target(i)))
    with torch.random.fork_rng(devices=[]):
        model = Places((5,), 4)
    found, task = made(rows, plain=None, test=rows), tasks.Segmentation()
    with pytest.raises(DataError) if message else nullcontext() as error:
        check_match(model, found, task)
    said = str(error.value) if message else ""
    assert message in said
    assert ("255" in message) == ("255" in said)


def test_classes_that_no_training_place_has_are_told_where_most_have_one(caplog):
    rows = Rows(lambda x, y, i: (x, [i % 2, 255]))
    with torch.random.fork_rng(devices=[]):
        model = Places((5,), 6)
    check_match(model, made(rows, plain=None, test=rows), tasks.Segmentation())
    message = "data has no training place of 1 of its 3 classes: 2; networks will not know them"
    assert message in caplog.messages


def ignored(x, y, i):
    """Which of the signals that ask for a stop are ignored where the sample is read."""
    stops = (signal.SIGINT, signal.SIGTERM)
    return x, [int(signal.getsignal(number) == signal.SIG_IGN) for number in stops]


def test_workers_leave_stopping_to_the_process_that_saves_its_work():
    ((_, found),) = read(Drawn(Rows(ignored), "rows"), [[("draw", 0)]], workers=1)
    assert found.tolist() == [[1, 1]]
