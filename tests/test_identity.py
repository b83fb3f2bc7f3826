"""Digests name what differs: bytes, types, shapes, files, labels, settings."""

import copy
import enum
import importlib
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small import few_digits, mobilenet
from torch import fx, nn
from torch.nn import functional as F

from boundnas import Dimension, TrainSettings, elastic
from boundnas.cost import Cost
from boundnas.data import Decoding, ImageFiles, InMemory, Subset
from boundnas.data.image_data import SPLITS
from boundnas.errors import DataError
from boundnas.fit import identity
from boundnas.fit.told import digest
from boundnas.space import Joined
from boundnas.space.polynomial import amount

IMAGES = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def different(one, other):
    return {name for name in one | other if one.get(name) != other.get(name)}


def test_a_digest_tells_type_shape_order_and_value_apart():
    plain = torch.tensor([1.0, 2.0])
    others = [
        plain.double(),
        plain.view(1, 2),
        plain.flip(0),
        torch.tensor([1.0, -2.0]),
        torch.tensor([1.0, 2.0, 0.0]),
        plain.view(torch.int32),
    ]
    found = [digest(each) for each in (plain, *others)]
    assert len(set(found)) == len(found)
    assert digest("ab", "c") != digest("a", "bc")
    weight = torch.arange(16.0).view(1, 2, 2, 4)
    laid_out = weight.contiguous(memory_format=torch.channels_last)
    assert digest(weight) == digest(laid_out), "the layout in memory is no value"


SOURCES = {
    "the same in another order of parts": (
        Subset(InMemory(IMAGES, LABELS), torch.arange(6)),
        set(),
    ),
    "another pixel": (InMemory(IMAGES + 1, LABELS), {"images"}),
    "another label": (InMemory(IMAGES, LABELS.flip(0)), {"labels"}),
    "another order": (
        Subset(InMemory(IMAGES, LABELS), torch.tensor([3, 1, 2, 0, 4, 5])),
        {"images"},
    ),
    "one image less": (InMemory(IMAGES[:5], LABELS[:5]), {"number", "images", "labels"}),
}


@pytest.mark.parametrize(("source", "names"), SOURCES.values(), ids=SOURCES)
def test_images_in_memory_are_known_by_every_pixel_and_label(source, names):
    whole = InMemory(IMAGES, LABELS)
    assert different(identity.of_source(whole), identity.of_source(source)) == names


def files(folder, grey=70, wide=8, name="3.bmp", labels=LABELS, **more):
    folder.mkdir(parents=True)
    paths = tuple(folder / (name if i == 3 else f"{i}.bmp") for i in range(6))
    for i, path in enumerate(paths):
        Image.new("L", (wide if i == 3 else 8, 8), grey if i == 3 else 10 * i).save(path)
    return ImageFiles(paths, labels, Decoding(8, channels=1, **more))


FILES = {
    "another pixel": ({"grey": 71}, {"images"}),
    "another size": ({"wide": 16}, {"files"}),
    "another name": ({"name": "x.bmp"}, {"files"}),
    "another label": ({"labels": LABELS.flip(0)}, {"labels"}),
    "another part": ({"centre": 0.5}, {"decoding"}),
    "another fit": ({"fit": "pad"}, {"decoding"}),
    "another background": ({"background": "black"}, {"decoding"}),
}


@pytest.mark.parametrize(("change", "names"), FILES.values(), ids=FILES)
def test_image_files_are_known_by_name_size_and_pixels_but_not_by_where_they_lie(
    change, names, tmp_path
):
    first = identity.of_source(files(tmp_path / "a" / "class"))
    assert identity.of_source(files(tmp_path / "b" / "class")) == first
    other = identity.of_source(files(tmp_path / "c" / "class", **change))
    assert different(first, other) == names


def test_of_many_files_a_sample_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SAMPLED", 2)
    source, read = files(tmp_path / "a"), []
    monkeypatch.setattr(
        ImageFiles, "take", lambda self, i: (read.extend(i.tolist()), (IMAGES[i], LABELS[i]))[1]
    )
    identity.of_source(source)
    assert read == [0, 5]


def test_an_image_that_is_gone_is_named_though_no_sample_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SAMPLED", 2)
    source = files(tmp_path / "a")
    source.paths[3].unlink()
    with pytest.raises(DataError, match=r"a/3\.bmp: cannot be read \(No such file"):
        identity.of_source(source)


class Table(Cost):
    """A cost that is looked up."""

    name, unit = "energy", "mJ"

    def __init__(self, model, entry):
        self.entry = entry
        super().__init__(model)

    def _polynomial(self, model):
        first = model.space.dimensions[0]
        return amount(first, lambda width: 5 + self.entry * (width == first.choices[-1]))


def test_a_cost_is_known_by_its_whole_table(monkeypatch):
    model = mobilenet()
    monkeypatch.setattr(type(model.space), "sample", lambda self, *args: self.smallest)
    monkeypatch.setattr(type(model.space), "largest", model.space.smallest)
    found = [identity.of_cost(Table(model, e), (1, 9), model.space) for e in (1, 2)]
    assert different(*found) == {"terms of the cost"}, "where the networks looked at are alike"


class Computed:
    """A source of one's own."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 6

    def take(self, indices):
        return IMAGES[indices], self.labels[indices]


def test_sources_of_ones_own_are_read():
    one, other = (identity.of_source(Computed(each)) for each in (LABELS, LABELS.flip(0)))
    assert different(one, other) == {"labels"}


def test_data_are_read_once(monkeypatch):
    data = replace(few_digits())
    found = identity.of_data(data)
    monkeypatch.setattr(identity, "of_source", None)
    assert identity.of_data(data) == found


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_what_is_written_in_place_is_read_again(part, split):
    source = InMemory(IMAGES.clone(), LABELS.clone())
    whole = replace(few_digits(), shape=(1, 2, 2), **dict.fromkeys(SPLITS, source))
    before = identity.of_data(whole)
    getattr(getattr(whole, split), part).view(-1)[0] = 2
    assert different(before, identity.of_data(whole)) == {f"{part} of data.{s}" for s in SPLITS}


CODES = {
    "a comment more": ("        return x\n", "        return x  # all of it\n", False),
    "another statement": ("        return x\n", "        return -x\n", True),
}


@pytest.mark.parametrize(("old", "new", "counts"), CODES.values(), ids=CODES)
def test_code_counts_by_what_it_says(old, new, counts, tmp_path, monkeypatch):
    text = "from torch import nn\n\n\nclass Layer(nn.Module):\n    def forward(self, x):\n" + old
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, written in ((f"one_{counts}", text), (f"other_{counts}", text.replace(old, new))):
        (tmp_path / f"{name}.py").write_text(written)
        found.append(identity.of_code([importlib.import_module(name).Layer]))
    assert (found[0] != found[1]) == counts
    assert list(found[0]) == ["code of Layer"]


def test_differences_are_named_with_both_values_and_the_others_by_name():
    held = {"a": "1", "b": "2", "c": "3"}
    assert identity.difference(held, dict(held)) is None
    assert identity.difference(held, held | {"b": "9"}) == "b = 2, this one has 9"
    assert identity.difference(held, {"a": "1"}) == "b = 2, this one has missing; 1 more differ: c"
    assert identity.difference({}, held).endswith("; 2 more differ: b, c")
    for nothing in (None, [], "a"):
        assert identity.difference(nothing, held).startswith("nothing that says what it is")


def test_settings_have_their_dotted_names():
    settings = TrainSettings(steps=3, prior=[{"dimensions": "a*", "largest": 4}])
    found = identity.of_settings(settings, "train", without=("train.tau",))
    assert found["train.steps"] == "3"
    assert '"dimensions": "a*"' in found["train.prior"]
    assert "train.tau" not in found
    assert len(found) == len(TrainSettings.model_fields) - 1


def test_every_weight_buffer_and_plain_attribute_of_a_module_counts():
    model = mobilenet()
    found = identity.of_model(model)
    assert identity.of_model(mobilenet()) == found
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            before = parameter.clone()
            parameter.view(-1)[-1] += 1
        assert different(identity.of_model(model), found) == {f"values of {name}"}
        with torch.no_grad():
            parameter.copy_(before)
    norm = nn.BatchNorm2d(4)
    assert any(name.startswith("values of running") for name in identity.of_weights(norm))


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


SCALE = 2


def scaled(x):
    return x * SCALE


def closing_over(value):
    return lambda x: x * value


class Held:
    """Something that a user's module holds."""

    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return x + self.value

    def called(self, x):
        return x * self.value


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


HELD = {  # attributes of a module; all of them differ
    "functions of torch": (torch.relu, torch.tanh, F.gelu, F.max_pool2d, F.max_pool1d, math.sin),
    "functions": (lambda x: x, lambda x: x + 1, lambda x: x + 2, lambda x, y=1: x, scaled),
    "other defaults": (lambda y=1: y, lambda y=2: y, lambda *, y=1: y, lambda *, y=2: y),
    "what functions close over": tuple(
        map(closing_over, (1, 2, [1], torch.ones(2), torch.zeros(2), torch.relu, scaled))
    ),
    "functions with some arguments": (
        partial(F.gelu, approximate="tanh"), partial(F.gelu, approximate="none"),
        partial(scaled, 1), partial(scaled, 2),
    ),
    "lists": ([1, 2], [2, 1], [1], [[1], 2], [torch.relu], [torch.tanh]),
    "dicts": ({"a": 1}, {"a": 2}, {"b": 1}, {"a": {"b": 1}}, {"a": {"b": [1]}}),
    "sets": ({"a", "b"}, {"a", "c"}, frozenset("abd")),
    "tensors": (torch.ones(2), torch.zeros(2), torch.ones(2).double(), torch.ones(1, 2)),
    "arrays": (np.ones(2), np.zeros(2), np.ones((1, 2)), np.ones(2, "f4")),
    "objects": (Held(1), Held(2), Held([1]), Held(Held(1)), Held({"a": torch.ones(1)})),
    "methods": (Held(1).called, Held(2).called, Held(1).__call__),
    "activations": ([nn.ReLU()], [nn.Tanh()], [nn.LeakyReLU(0.1)], [nn.LeakyReLU(0.2)]),
    "words": (Kind.ONE, Kind.TWO, torch.float16, torch.float32, b"1", 1j, nn.ReLU, slice(1)),
}  # fmt: skip


def structure(value, name="held"):
    """What is told of a module that holds something."""
    model = mobilenet()
    model.layer = Between(None)
    setattr(model.layer, name, value)
    return identity.of_structure(model)["module layer"]


@pytest.mark.parametrize("name", HELD)
def test_modules_that_hold_something_else_are_told_apart(name):
    found = [structure(value) for value in HELD[name]]
    assert len(set(found)) == len(found)
    assert [structure(copy.deepcopy(value)) for value in HELD[name]] == found
    assert structure(HELD[name][0], "_held") != structure(HELD[name][1], "_held")
    assert not re.search(r" at 0x|<function|tensor\(", "".join(found))


def test_what_is_told_of_them_is_the_same_in_every_process():
    each = "t.structure(v) for held in t.HELD.values() for v in held"
    code = f"import tests.test_identity as t; print([{each}])"
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # of another process than this
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    here = [structure(value) for held in HELD.values() for value in held]
    assert done.stdout == f"{here}\n"


class Scaling(nn.Module):
    """Computes with a function of its file, and that with a constant of it."""

    def forward(self, x):
        return scaled(x)


def test_constants_that_code_uses_are_part_of_it(monkeypatch):
    def found():
        return structure(scaled), identity.of_code([Scaling])

    before = found()
    assert found() == before
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3)
    assert all(now != was for now, was in zip(found(), before, strict=True))


WIDTH, OTHER = Dimension("width", (4, 8)), Dimension("width", (2, 8))
LAYER = elastic.Activation()
LAYERS = {
    "stride": [elastic.Conv2d(4, 8, 3, stride=s) for s in (1, 2)],
    "padding": [elastic.Conv2d(4, 8, 3, padding=p) for p in (0, 1)],
    "dilation": [elastic.Conv2d(4, 8, 3, padding=1, dilation=d) for d in (1, 2)],
    "what is padded": [elastic.Conv1d(4, 8, 3, padding_mode=m) for m in ("zeros", "reflect")],
    "groups": [elastic.Conv2d(WIDTH, WIDTH, 3, group_width=g) for g in (2, 4)],
    "output padding": [elastic.ConvTranspose2d(4, 8, 3, 2, output_padding=p) for p in (0, 1)],
    "width": [elastic.Linear(w, 3) for w in (WIDTH, OTHER)],
    "joined widths": [elastic.Linear(Joined(p), 3) for p in ((WIDTH, 4), (4, WIDTH))],
    "kernel": [elastic.Conv2d(4, 8, Dimension("kernel", k)) for k in ((1, 5), (3, 5))],
    "heads": [elastic.MultiheadAttention(8, h, 8 // h) for h in (2, 4)],
    "alternatives": [
        elastic.Choice(Dimension("e", (1, 2, 3)), {1: None, 2: LAYER if b else None, 3: LAYER})
        for b in (False, True)
    ],
    "shortcut": [elastic.Shortcut(4, w) for w in (WIDTH, OTHER)],
    "axis of a split": [elastic.Split(Joined((4, 4)), axis) for axis in (1, -1)],
    "how images are resized": [elastic.Resized(LAYER, 8, m) for m in ("nearest", "bilinear")],
    "squeeze and excite": [elastic.SqueezeExcite(8, gate=g) for g in ("tanh", "sigmoid")],
    "a graph": [fx.symbolic_trace(Between(f)) for f in (torch.relu, torch.tanh)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_differ_in_one_number_are_told_apart(name):
    models = []
    for layer in LAYERS[name]:
        model = mobilenet()
        model.layer = copy.deepcopy(layer)
        models.append(identity.of_structure(model))
    assert "module layer" in different(*models)
