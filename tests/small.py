"""Models, data and runs so small that training takes a fraction of a second."""

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from boundnas import TrainSettings, data, fit
from boundnas.models import MobileNet, StageTable, StemTable
from boundnas.store.records import Metric
from boundnas.task import Classification

torch.set_num_threads(1)  # bits agree between equal numbers of threads only

STEM = StemTable((2, 4))
STAGES = (
    StageTable(
        (4, 8), (4, 6), depth=(1, 2), kernel=(3, 5), se=(False, True), activation=("relu", "swish")
    ),
    StageTable((8,), (8,), stride=2),
)
COST_RANGE = (12e3, 40e3)
ACCURACY = Metric.of(Classification())


@contextmanager
def threads(number):
    """Within it PyTorch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def default_type(kind):
    """Within it tensors are made in another type where none is said, as other packages ask."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def mobilenet(last_width=8, in_channels=1):
    """A supernet of 256 networks, 10,320 to 45,584 MACs and 492 to 1,194 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MobileNet(STEM, STAGES, last_width, image_size=8, in_channels=in_channels)


@cache
def few_digits():
    """Digits of which 80 are trained on: five batches of 16 an epoch."""
    digits = data.digits()
    return replace(digits, train=data.Subset(digits.train, torch.arange(80)))


@cache
def trained():
    """A run of 60 steps in memory; not to be changed."""
    settings = TrainSettings(steps=60, batch_size=32)
    return fit(mobilenet(), data.digits(), cost_range=COST_RANGE, settings=settings)


def batch(size=8):
    """Normalized images and labels."""
    digits = data.digits()
    images, labels = digits.train.take(torch.arange(size))
    return data.normalize(images, digits.mean, digits.std), labels


def digest(*values):
    """SHA-256 of modules' states, tensors and folders of files, by name."""
    sha = hashlib.sha256()
    for value in values:
        for name, content in sorted(_leaves(value)):
            sha.update(f"{name} {len(content)} ".encode() + content)
    return sha.hexdigest()


def files(folder):
    """The bytes of every file below a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outcome(folder):
    """What a run in a folder, or below it, came to: its files, of the checkpoints the newest."""
    older = sorted(folder.rglob("checkpoints/step-*"))[:-1]
    gone = tuple(f"{path.relative_to(folder)}/" for path in older)
    return {name: content for name, content in files(folder).items() if not name.startswith(gone)}


def _leaves(value):
    if isinstance(value, Path):
        yield from files(value).items()
        return
    for name, tensor in value.state_dict().items():
        yield name, tensor.detach().contiguous().numpy().tobytes()
