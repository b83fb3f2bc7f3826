"""Exported networks: they run without BoundNAS, compute the same, and are whole or absent."""

import contextlib
import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from tests.small import ACCURACY, digest, files, trained
from torch import nn
from torch.nn import functional as F

from boundnas import SearchSettings, extract, tasks
from boundnas.cost import Bytes
from boundnas.data import normalize
from boundnas.deploy import formats, networks
from boundnas.deploy.card import card
from boundnas.deploy.export import TOLERANCE, export
from boundnas.deploy.networks import SUMS, Handover, export_network, verify
from boundnas.deploy.quantize import int8
from boundnas.errors import CalibrationError, ExportError, RunError
from boundnas.latency.onnx_file import onnx_of
from boundnas.search import Evaluator, FrontNetwork
from boundnas.task import Classification

ALONE = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "boundnas":
            raise ImportError("boundnas is not here")

sys.meta_path.insert(0, Blocked())
import numpy, onnxruntime, torch

images = numpy.load("images.npy")
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
net = torch.export.load("model.pt2").module()
for size in (1, 3, len(images)):
    batch = images[:size]
    numpy.save(f"onnx-{size}.npy", session.run(None, {"images": batch})[0])
    with torch.no_grad():
        numpy.save(f"pt2-{size}.npy", net(torch.from_numpy(batch)).numpy())
assert "boundnas" not in sys.modules
"""


@pytest.fixture(scope="module")
def network():
    """A network in the middle of the space, measured as the search does."""
    run = trained()
    evaluator = Evaluator(run.model, run.data, SearchSettings(calibration_images=256), seed=0)
    arch = run.model.space.architecture(
        {**run.model.space.largest.values, "stem.width": 2, "stage1.kernel": 3}
    )
    measured = evaluator(arch)
    calibrated = evaluator.calibrated(arch)
    test = evaluator.score(calibrated, run.data.test)
    return FrontNetwork(calibrated, measured.costs, measured.score, test, ACCURACY)


@pytest.fixture(scope="module")
def net(network):
    return extract(trained().model, network.arch)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """The folder of a network in both formats."""
    folder = tmp_path_factory.mktemp("networks") / str(network.macs)
    export_network(trained().model, network, folder, Handover(trained().data, ("onnx", "pt2")))
    return folder


@pytest.fixture(scope="module")
def images_and_labels():
    data = trained().data
    images, labels = data.test.take(torch.arange(len(data.test)))
    return normalize(images, data.mean, data.std).contiguous(), labels


@pytest.fixture(scope="module")
def computed_alone(exported, images_and_labels, tmp_path_factory):
    """Logits by format and batch size, computed by a process that cannot import boundnas."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("model.onnx", "model.pt2"):
        (folder / name).write_bytes((exported / name).read_bytes())
    np.save(folder / "images.npy", images_and_labels[0].numpy())
    subprocess.run([sys.executable, "-c", ALONE], check=True, cwd=folder)
    return {p.stem: torch.from_numpy(np.load(p)) for p in folder.glob("*-*.npy")}


@pytest.mark.parametrize("size", [1, 3, None], ids=["one image", "three images", "all images"])
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_file_computes_what_the_supernet_does_without_boundnas(
    form, size, computed_alone, images_and_labels, network
):
    images, labels = images_and_labels
    size = len(images) if size is None else size
    with torch.no_grad():
        expected = trained().model(images[:size], network.arch)
    found = computed_alone[f"{form}-{size}"]
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    if size == len(images):
        correct = int((found.argmax(1) == labels).sum())
        assert correct / len(images) == network.test


def test_a_file_is_the_same_every_time_and_tells_nothing_of_the_machine(
    exported, network, tmp_path
):
    again = tmp_path / exported.name
    export_network(trained().model, network, again, Handover(trained().data, ("onnx", "pt2")))
    assert files(again) == files(exported)
    for name, content in files(exported).items():
        for place in (sys.prefix, os.path.dirname(torch.__file__), os.getcwd(), exported):
            assert str(place).encode() not in content, name


def test_the_weights_alone_are_those_of_the_network_and_as_large_as_the_cost_says(
    network, net, tmp_path
):
    model = trained().model
    export_network(model, network, tmp_path / "1", Handover(trained().data, ("safetensors",)))
    content = (tmp_path / "1" / "model.safetensors").read_bytes()
    assert content == export(net, tmp_path / "net.safetensors").read_bytes()
    assert len(content) == Bytes(model)(network.arch)
    usage = re.search("```python\n(.*?)```", (tmp_path / "1" / "card.md").read_text(), re.DOTALL)[1]
    twin = copy.deepcopy(net)
    for value in twin.state_dict().values():
        value.zero_()
    with contextlib.chdir(tmp_path / "1"):
        exec(usage, {"net": twin})  # noqa: S102
    assert digest(twin) == digest(net)


def test_a_folder_holds_the_files_asked_for_and_nothing_else(exported):
    names = ["SHA256SUMS", "architecture.json", "card.md", "model.onnx", "model.pt2"]
    assert sorted(path.name for path in exported.iterdir()) == names
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_the_architecture_file_names_every_dimension_and_number(exported, network):
    held = json.loads((exported / "architecture.json").read_text())
    assert trained().model.space.architecture(held.pop("architecture")) == network.arch
    assert len(held.pop("network")) == 64
    assert held == {
        "costs": {"macs": network.macs, "parameters": network.parameters},
        "validation": network.validation,
        "test": network.test,
        "metric": {"name": "accuracy", "unit": "%", "scale": 100.0},
    }


def test_the_card_says_what_a_user_needs(exported, network):
    text_of, data = (exported / "card.md").read_text(), trained().data
    for text in (
        f"# Network of {network.macs / 1e6:.4g} MMACs for digits\n",
        f"| MACs of one image | {network.macs:,} |",
        f"| Parameters | {network.parameters:,} |",
        f"| Test accuracy | {ACCURACY.shown(network.test)} |",
        "float32, shape (N, 1, 8, 8), any N",
        f"mean {list(data.mean)} and std {list(data.std)}",
        "float32, shape (N, 10)",
        'in this order:\n\n    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]\n',
        'InferenceSession("model.onnx")',
        'torch.export.load("model.pt2")',
        *(f"| {name} | {value} |\n" for name, value in network.arch.values.items()),
    ):
        assert text in text_of


def test_the_code_on_the_card_runs(exported, images_and_labels, monkeypatch):
    monkeypatch.chdir(exported)
    blocks = (exported / "card.md").read_text().split("```")[1::2]
    two = images_and_labels[0][:2]
    for block, images in zip(blocks, (two.numpy(), two), strict=True):
        names = {"images": images}
        exec(block.removeprefix("python\n"), names)  # noqa: S102
        assert tuple(names["logits"].shape) == (2, 10)
        if "session" in names:
            assert [each.name for each in names["session"].get_outputs()] == ["logits"]


OUTPUTS = {
    "logits": (tasks.Classification, tasks.MultiLabel, tasks.Segmentation, tasks.NextToken),
    "standardized": (tasks.Regression, lambda: tasks.Regression("MAE")),
    "output": (lambda: tasks.Own(F.l1_loss, F.l1_loss, F.l1_loss),),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_called_on_the_card_as_its_task_says(name, network):
    for make in OUTPUTS[name]:
        text = card(network, trained().data, make(), {"onnx": 1, "pt2": 1})
        assert f"Output `{name}`: float32" in text
        assert f"\n{name} = session.run(" in text
        assert f"\n{name} = net(" in text


def test_a_card_describes_only_the_formats_there_are(network):
    text = card(network, trained().data, Classification(), {"pt2": 1})
    assert "model.pt2" in text
    assert "onnx" not in text


def test_a_folder_that_is_there_is_left_as_it_is(exported, network, monkeypatch):
    before = files(exported)
    monkeypatch.setattr(networks, "files_of", None)
    monkeypatch.setattr(networks, "_put", None)
    export_network(trained().model, network, exported, Handover(trained().data, ("onnx", "pt2")))
    assert files(exported) == before


def recalibrated(network, run):
    """The same numbers with the statistics of other images."""
    evaluator = Evaluator(run.model, run.data, SearchSettings(calibration_images=128), seed=1)
    return replace(network, arch=evaluator.calibrated(network.arch.plain))


def changed_weights(network):
    model = copy.deepcopy(trained().model)
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1
    run = replace(trained(), model=model)
    return model, recalibrated(network, run)


def smallest(network):
    run = trained()
    evaluator = Evaluator(run.model, run.data, SearchSettings(calibration_images=256), seed=0)
    return replace(network, arch=evaluator.calibrated(run.model.space.smallest))


OTHERS = {  # what is asked for where `network` lies: model, network and data
    "another architecture": lambda n: (trained().model, smallest(n), trained().data),
    "other weights": lambda n: (*changed_weights(n), trained().data),
    "other statistics": lambda n: (trained().model, recalibrated(n, trained()), trained().data),
    "another accuracy": lambda n: (trained().model, replace(n, test=0.5), trained().data),
    "other costs": lambda n: (
        trained().model,
        replace(n, costs={**n.costs, "own": 7}),
        trained().data,
    ),
    "other names of classes": lambda n: (
        trained().model,
        n,
        replace(trained().data, classes=tuple("abcdefghij")),
    ),
    "another normalization": lambda n: (trained().model, n, replace(trained().data, mean=(0.5,))),
}
FORMATS = {  # those that are there, and those asked for
    "no files": ((), ()),
    "one file": (("pt2",), ("pt2",)),
    "another format": (("pt2",), ("onnx",)),
    "fewer formats": (("pt2",), ()),
    "more formats": ((), ("pt2",)),
    "weights alone": (("pt2",), ("safetensors",)),
}


@pytest.fixture(scope="module")
def held_by(network, tmp_path_factory):
    """The files of ``network`` in one format."""
    folder = tmp_path_factory.mktemp("held") / "1"
    export_network(trained().model, network, folder, Handover(trained().data, ("pt2",)))
    return files(folder)


def put(content, folder):
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "formats"),
    [(name, "no files") for name in OTHERS]
    + [("another architecture", "one file")]
    + [(None, formats) for formats in FORMATS if formats not in ("no files", "one file")],
)
def test_a_folder_that_holds_another_network_is_written_anew(
    name, formats, network, held_by, tmp_path
):
    there, asked = FORMATS[formats]
    folder, fresh = tmp_path / "1", tmp_path / "fresh"
    if there:
        put(held_by, folder)
    else:
        export_network(trained().model, network, folder, Handover(trained().data, there))
    before = files(folder)
    model, other, data = (
        OTHERS[name](network) if name else (trained().model, network, trained().data)
    )
    for place in (folder, fresh):
        export_network(model, other, place, Handover(data, asked))
    assert files(folder) == files(fresh) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "fresh"]


def test_a_network_of_weights_that_are_gone_is_not_exported(network, held_by, tmp_path):
    folder = put(held_by, tmp_path / "1")
    model, _ = changed_weights(network)
    with pytest.raises(CalibrationError, match="other weights"):
        export_network(model, network, folder, Handover(trained().data, ("pt2",)))
    assert files(folder) == held_by


@pytest.mark.parametrize("summed", [False, True])
def test_a_foreign_file_is_named_and_kept(summed, network, held_by, tmp_path):
    folder = put({**held_by, "notes.txt": b"mine"}, tmp_path / "1")
    if summed:
        hashes = {k: hashlib.sha256(v).hexdigest() for k, v in files(folder).items() if k != SUMS}
        (folder / SUMS).write_text("".join(f"{hashes[k]}  {k}\n" for k in sorted(hashes)))
    before = files(folder)
    for asked in (network, smallest(network)):
        with pytest.raises(ExportError, match=r"notes\.txt: is (no file of an|not what was)"):
            export_network(trained().model, asked, folder, Handover(trained().data, ("pt2",)))
    assert files(folder) == before


@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_replacement_that_is_stopped_leaves_a_whole_folder_or_none(
    moment, network, held_by, tmp_path, monkeypatch
):
    folder, other = put(held_by, tmp_path / "1"), smallest(network)
    remove = networks.remove_at_once

    def stopped(*arguments):
        if moment != "before":
            remove(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "remove_at_once", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_network(trained().model, other, folder, Handover(trained().data, ()))
    monkeypatch.undo()
    left = files(tmp_path)
    assert left in ({}, {f"1/{name}": content for name, content in held_by.items()})
    export_network(trained().model, other, folder, Handover(trained().data, ()))
    assert verify(folder).keys() == {"SHA256SUMS", "architecture.json", "card.md"}


def test_files_are_checked_against_the_supernet_itself(network, tmp_path, monkeypatch):
    def another(model, arch):
        net = extract(model, arch)
        net.classifier.bias.data += 1
        return net

    monkeypatch.setattr(networks, "extract", another)
    with pytest.raises(ExportError, match=r"model\.pt2: the written file differs"):
        export_network(trained().model, network, tmp_path / "1", Handover(trained().data, ("pt2",)))
    assert not list(tmp_path.iterdir())


def test_a_file_is_of_evaluation_and_the_network_is_left_as_it_is(tmp_path):
    with torch.random.fork_rng(devices=[]):
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten()
        net = nn.Sequential(*layers).double().train()
    net[1].eval()
    before = copy.deepcopy(net.state_dict())
    path = export(net, tmp_path / "net.pt2", input_shape=(3, 4, 4))
    assert [m.training for m in net] == [True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    images = torch.ones(5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(formats._opened_pt2(path)(images), net.eval()(images))


class _Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(4, 4)


class _Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.sum()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (_Fixed(), r"torch\.export cannot follow this network"),
        (_Pair(), r"one output, a tensor; this network's is a tuple"),
    ],
    ids=["a fixed batch", "two outputs"],
)
def test_a_network_that_no_file_can_hold_is_refused(net, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(net, tmp_path / "net.pt2", input_shape=(1, 2, 2))
    assert not list(tmp_path.iterdir())


def test_what_the_runtime_of_a_file_cannot_do_is_refused(tmp_path):
    with torch.random.fork_rng(devices=[]):
        net = nn.Conv2d(1, 1, 3).double()  # which ONNX Runtime does not compute
    with pytest.raises(ExportError, match=r"net\.onnx: no such file can be made .*Conv"):
        export(net, tmp_path / "net.onnx", input_shape=(1, 4, 4))
    assert not list(tmp_path.iterdir())


class _Unknown(nn.Module):
    def forward(self, x):
        return torch.special.i0e(x).flatten(1)


def test_what_its_writer_cannot_write_is_refused_by_name(tmp_path):
    with pytest.raises(ExportError, match=r"net\.onnx: no such file .* network: No .*bessel_i0e"):
        export(_Unknown(), tmp_path / "net.onnx", input_shape=(1, 4, 4))
    assert not list(tmp_path.iterdir())


class _Attending(nn.Module):
    """Attention of two heads, or none of their own, within equal parts of the tokens."""

    def __init__(self, parts, mask=None, shared=False, heads=True, by_hand=False, **options):
        super().__init__()
        self.parts, self.heads, self.options, self.by_hand = parts, heads, options, by_hand
        self.query, self.key = nn.Linear(6, 12), nn.Linear(6, 6 if shared else 12)
        self.register_buffer("mask", mask)

    def forward(self, x):
        query, key = (self._apart(layer(x)) for layer in (self.query, self.key))
        if self.by_hand:
            scores = query @ key.mT + -1e9 * ~self.mask + query.mean()
            return (scores.softmax(-1) @ key.sin()).flatten(1)
        y = F.scaled_dot_product_attention(query, key, key.sin(), self.mask, **self.options)
        return y.flatten(1)

    def _apart(self, x):
        if self.parts:
            x = x.unflatten(1, (*self.parts, -1))
        return x.unflatten(-1, (-1, 3)).transpose(-3, -2) if self.heads else x


class _Placed(_Attending):
    """With a bias for each pair of places, looked up in a table that is trained."""

    def __init__(self):
        super().__init__(())
        self.table = nn.Parameter(torch.randn(15, 4))
        self.register_buffer("places", torch.arange(8)[:, None] - torch.arange(8) + 7)

    def forward(self, x):
        query, key = (self._apart(layer(x)) for layer in (self.query, self.key))
        bias = self.table[self.places].permute(2, 0, 1)[None]
        y = F.scaled_dot_product_attention(query, key, key.sin(), bias)
        return y.transpose(1, 2).reshape(*x.shape[:2], 12).mean(1)


LOWER = torch.ones(4, 4, dtype=torch.bool).tril()
ATTENDING = {
    "one head": lambda: _Attending((), torch.linspace(-2, 2, 64).view(8, 8), heads=False),
    "heads": lambda: _Attending((), is_causal=True),
    "a mask of every window": lambda: _Attending((2,), torch.stack([LOWER, LOWER.T])[:, None]),
    "windows of windows": lambda: _Attending((2, 1), LOWER.log(), scale=0.3),
    "shared keys": lambda: _Attending((2,), shared=True, enable_gqa=True, is_causal=True),
    "a bias by place": _Placed,
    "by hand": lambda: _Attending((2,), LOWER, by_hand=True),
}


@pytest.mark.parametrize("name", ATTENDING)
def test_attention_is_written_on_any_number_of_axes(name, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = ATTENDING[name]().eval(), torch.randn(3, 8, 6)
        many = torch.randn(64, 8, 6)
    expected = net(x)
    path = export(net, tmp_path / "net.onnx", input_shape=(8, 6))
    torch.testing.assert_close(formats.opened(path.read_bytes())(x), expected)
    session = onnxruntime.InferenceSession(onnx_of(net, [x]))  # what its latency is measured of
    (timed,) = session.run(None, {"input_0": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(timed), expected)
    program = torch.export.load(export(net, tmp_path / "net.pt2", input_shape=(8, 6))).module()
    torch.testing.assert_close(program(x), expected)
    content, _ = int8(path, path.read_bytes(), many)
    found, expected = formats.opened(content)(many), net(many)
    assert (found - expected).norm() < 0.04 * expected.norm(), "in 8 bits"


@pytest.mark.parametrize("name", ["net", "net.pt", "net.ONNX", "net.onnx.zip"])
def test_another_suffix_is_refused_with_those_there_are(net, name, tmp_path):
    with pytest.raises(
        ExportError, match=r"one of \.onnx, \.pt2, \.safetensors, found (none|\.\w+)"
    ):
        export(net, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_network_of_unknown_input_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"input_shape=\(channels, height, width\)"):
        export(nn.Flatten(), tmp_path / "net.pt2")


def test_any_plain_module_can_be_written(tmp_path):
    with torch.random.fork_rng(devices=[]):
        plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    path = export(plain, str(tmp_path / "new" / "net.pt2"), input_shape=(3, 2, 2))
    images = torch.ones(5, 3, 2, 2)
    torch.testing.assert_close(torch.export.load(path).module()(images), plain(images))


class _Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def test_a_module_that_branches_on_values_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"torch\.export cannot follow this network: "):
        export(_Branching(), tmp_path / "net.pt2", input_shape=(1, 2, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", [1e-2, float("nan")], ids=["another result", "not a number"])
def test_a_file_that_computes_something_else_is_not_kept(
    net, network, found, tmp_path, monkeypatch
):
    write, opened = formats.WRITERS[".pt2"]

    def altered(path):
        run = opened(path)
        return lambda images: run(images) * (1 + found)

    monkeypatch.setitem(formats.WRITERS, ".pt2", (write, altered))
    with pytest.raises(ExportError, match=r"net\.pt2: .* differs .* not kept"):
        export(net, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "networks" / "1"
    with pytest.raises(ExportError, match="not kept"):
        export_network(trained().model, network, folder, Handover(trained().data, ("pt2",)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_export_that_is_stopped_leaves_no_half_folder(error, network, tmp_path, monkeypatch):
    def stopped(*_):
        raise error

    monkeypatch.setattr(networks, "write_new", stopped)
    with pytest.raises(error):
        export_network(
            trained().model, network, tmp_path / "networks" / "1", Handover(trained().data, ())
        )
    assert not list((tmp_path / "networks").iterdir())


def test_what_a_killed_export_left_is_replaced(network, tmp_path):
    left = tmp_path / ".boundnas-1-0123abcd.partial"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"half")
    export_network(trained().model, network, tmp_path / "1", Handover(trained().data, ()))
    assert sorted(files(tmp_path)) == ["1/SHA256SUMS", "1/architecture.json", "1/card.md"]


def test_a_folder_that_cannot_be_written_is_named(network, tmp_path):
    (tmp_path / "networks").write_text("a file in the way")
    with pytest.raises(RunError, match=r"networks.*cannot be written"):
        export_network(
            trained().model, network, tmp_path / "networks" / "1", Handover(trained().data, ())
        )
