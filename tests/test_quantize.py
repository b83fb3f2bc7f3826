"""INT8 files: measured, the same every time, run without BoundNAS, refused if they say nothing."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.small import files, trained
from torch import nn

from boundnas import SearchSettings, export, extract
from boundnas.data import Subset, normalize
from boundnas.deploy import networks, quantize
from boundnas.deploy.networks import Handover, export_network, verify
from boundnas.errors import ExportError
from boundnas.search import Evaluator, FrontNetwork

ALONE = """
import sys

sys.modules["boundnas"] = None
import numpy, onnxruntime

session = onnxruntime.InferenceSession("model.int8.onnx", providers=["CPUExecutionProvider"])
for split in ("validation", "test"):
    images, labels = (numpy.load(f"{split}-{what}.npy") for what in ("images", "labels"))
    print((session.run(None, {"images": images})[0].argmax(1) == labels).mean())
    assert session.run(None, {"images": images[:1]})[0].shape == (1, 10)
"""


@pytest.fixture(scope="module")
def network():
    """The largest network: squeeze-and-excitation, swish, depthwise layers of 5x5."""
    run = trained()
    evaluator = Evaluator(run.model, run.data, SearchSettings(calibration_images=256), seed=0)
    arch = evaluator.calibrated(run.model.space.largest)
    scores = (evaluator.score(arch, s) for s in (run.data.validation, run.data.test))
    return FrontNetwork(arch, evaluator(arch).costs, *scores, evaluator.metric)


def put(network, folder, formats=("onnx", "int8"), data=None, seed=0):
    """The folder of a network, exported there."""
    export_network(
        trained().model, network, folder, Handover(data or trained().data, formats, seed=seed)
    )
    return folder


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return put(network, tmp_path_factory.mktemp("networks") / "1")


@pytest.fixture
def traced_once(exported, monkeypatch):
    """The float file, which tests/test_export.py has an eye on, is not made again."""
    onnx = (exported / "model.onnx").read_bytes()
    monkeypatch.setattr(networks, "files_of", lambda *_: [onnx])


@pytest.fixture(scope="module")
def net(network):
    return extract(trained().model, network.arch)


@pytest.fixture(scope="module")
def images():
    return quantize.calibration_images(trained().data, 0)


def test_the_card_tells_the_accuracy_that_the_file_alone_has(exported, network, tmp_path):
    data = trained().data
    (tmp_path / "model.int8.onnx").write_bytes((exported / "model.int8.onnx").read_bytes())
    for split in ("validation", "test"):
        source = getattr(data, split)
        pixels, labels = source.take(torch.arange(len(source)))
        np.save(tmp_path / f"{split}-images.npy", normalize(pixels, data.mean, data.std).numpy())
        np.save(tmp_path / f"{split}-labels.npy", labels.numpy())
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    validation, test = map(float, done.stdout.split())
    card = (exported / "card.md").read_text()
    for name, numbers in (
        ("onnx", (network.validation, network.test)),
        ("int8.onnx", (validation, test)),
    ):
        size = (exported / f"model.{name}").stat().st_size
        shown = " | ".join(map(network.metric.shown, numbers))
        assert f"| `model.{name}` | {size:,} | {shown} |\n" in card
    for split, before, after in (
        ("validation", network.validation, validation),
        ("test", network.test, test),
    ):
        before, after = map(network.metric.shown, (before, after))
        assert f" the {split} accuracy " in card
        assert f" from {before} to {after}" in card
    held = json.loads((exported / "architecture.json").read_text())["int8"]
    assert (held["validation"], held["test"]) == (validation, test)


def test_the_file_holds_weights_of_every_layer_in_eight_bits(exported):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported / "model.int8.onnx").graph
    made = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert {made[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
    weights = [onnx.numpy_helper.to_array(i) for i in graph.initializer]
    weights = [w for w in weights if w.dtype == np.int8 and w.ndim > 1]
    assert weights
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 64  # 7 bits: no overflow


def test_two_exports_give_the_same_bytes(exported, network, tmp_path):
    assert files(put(network, tmp_path / "again")) == files(exported)


@pytest.mark.usefixtures("traced_once")
def test_the_seed_draws_the_images_that_the_ranges_come_from(exported, network, tmp_path):
    other = files(put(network, tmp_path / "other", seed=1))
    assert other["model.onnx"] == files(exported)["model.onnx"]
    assert other["model.int8.onnx"] != files(exported)["model.int8.onnx"]


@pytest.mark.usefixtures("traced_once")
def test_the_8_bits_alone_can_be_asked_for(exported, network, tmp_path):
    found = files(put(network, tmp_path / "1", ("int8",)))
    assert sorted(found) == ["SHA256SUMS", "architecture.json", "card.md", "model.int8.onnx"]
    assert found["model.int8.onnx"] == files(exported)["model.int8.onnx"]
    assert verify(tmp_path / "1") == found


def test_a_folder_that_is_there_is_left_as_it_is(exported, network, monkeypatch):
    before = files(exported)
    monkeypatch.setattr(networks, "int8", None)
    monkeypatch.setattr(networks, "_put", None)
    put(network, exported)
    assert files(exported) == before


def fewer(split):
    """The data without the last image of a split."""
    data, source = trained().data, getattr(trained().data, split)
    return replace(data, **{split: Subset(source, torch.arange(len(source) - 1))})


def edited(folder):
    """Another accuracy in the file of numbers, under right sums."""
    path = folder / "architecture.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "int8": {**held["int8"], "test": 1.0}}, indent=2))
    sums = networks._sums({p.name: p.read_bytes() for p in folder.iterdir()})
    (folder / "SHA256SUMS").write_text(sums)


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"data": "train"},
        {"data": "validation"},
        {"data": "test"},
        {"formats": ("int8",)},
        {"formats": ("onnx",)},
        pytest.param({"change": edited}, id="edited"),
    ],
    ids=str,
)
def test_a_file_that_was_made_or_measured_otherwise_is_made_anew(
    other, exported, network, tmp_path
):
    for name, content in files(exported).items():
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1" / name).write_bytes(content)
    other = dict(other)
    if "data" in other:
        other["data"] = fewer(other["data"])
    other.pop("change", lambda folder: None)(tmp_path / "1")
    fresh = files(put(network, tmp_path / "fresh", **other))
    assert files(put(network, tmp_path / "1", **other)) == fresh


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_stop_on_the_way_leaves_nothing(error, network, tmp_path, monkeypatch):
    def stopped(*_):
        raise error

    monkeypatch.setattr(networks, "measure", stopped)
    with pytest.raises(error):
        put(network, tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_a_file_from_python_is_that_of_the_run_and_says_what_it_changes(
    net, images, exported, tmp_path, caplog
):
    path = export(net, tmp_path / "net.onnx", quantize="int8", images=images)
    whole = (exported / "model.int8.onnx").read_bytes()  # which knows its task
    assert path.read_bytes() == whole.replace(b"logits", b"output")
    (record,) = (r for r in caplog.records if r.name.startswith("boundnas"))
    assert record.levelno == logging.WARNING
    before, after = (
        quantize.opened((exported / "model.onnx").read_bytes()),
        quantize.opened(path.read_bytes()),
    )
    expected, found = before(images).double(), after(images).double()
    loss = ((found - expected).square().mean() / expected.square().mean()).sqrt()
    assert 0.001 < loss < 0.5
    assert record.getMessage() == (
        f"{path}: 8 bits change the outputs by {100 * loss:.2g} % (root mean square on 512 "
        "images); measure its accuracy before you use it"
    )


def part(images, **changes):
    """What is passed for images, some of it wrong."""
    shape, dtype = changes.get("shape", images[:4].shape), changes.get("dtype", images.dtype)
    return torch.full(shape, changes.get("value", 1.0)).to(dtype)


BAD_IMAGES = {
    "pixels": ({"dtype": torch.uint8}, r"some of float32 of shape \(1, 8, 8\), .* found uint8"),
    "other sizes": ({"shape": (4, 1, 7, 8)}, r"found float32 of shape \(4, 1, 7, 8\)"),
    "one image": ({"shape": (1, 8, 8)}, r"found float32 of shape \(1, 8, 8\)"),
    "none": ({"shape": (0, 1, 8, 8)}, r"found float32 of shape \(0, 1, 8, 8\)"),
    "infinite": ({"value": float("inf")}, r"values that are not finite"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_images_that_the_network_does_not_take_are_refused(changes, message, net, images, tmp_path):
    with pytest.raises(ExportError, match=rf"net\.onnx: images.*{message}"):
        export(net, tmp_path / "net.onnx", quantize="int8", images=part(images, **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "quantize_as", "given"),
    [("net.onnx", "int8", False), ("net.onnx", None, True), ("net.pt2", "int8", True)],
    ids=["no images", "images alone", "another format"],
)
def test_half_a_request_is_refused(name, quantize_as, given, net, images, tmp_path):
    with pytest.raises(ExportError, match=r"8 bits need all of a file \.onnx, quantize='int8' and"):
        export(net, tmp_path / name, quantize=quantize_as, images=images if given else None)
    assert not list(tmp_path.iterdir())


class _Two(nn.Module):
    """Takes rows and whole numbers by name."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.last(self.embed(inputs["id"]) * inputs["row"])


def test_other_inputs_than_images_are_calibrated_on_too(tmp_path):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _Two()
    inputs = {
        "id": torch.randint(5, (200,), generator=generator),
        "row": torch.randn(200, 4, generator=generator),
    }
    net.meta = {"example": {name: value[0] for name, value in inputs.items()}}
    path = export(net, tmp_path / "net.onnx", quantize="int8", images=inputs)
    found = quantize.opened(path.read_bytes())(inputs)
    with torch.no_grad():
        expected = net(inputs)
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()
    with pytest.raises(ExportError, match=r"must be some of int64 of shape \(\) at \['id'\]"):
        export(net, tmp_path / "net.onnx", quantize="int8", images=inputs["row"])


class _Swamped(nn.Module):
    """Reads a small value beside a huge one, which leaves no bit for it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.first.weight.data = torch.tensor([1e6, 1.0]).view(2, 1, 1, 1)
        self.last.weight.data = torch.tensor([[0.0, 1.0], [0.0, -1.0]]).view(2, 2, 1, 1)

    def forward(self, x):
        return self.last(self.first(x)).flatten(1)


SAYS_NOTHING = {
    "values of very different size": (_Swamped, r"differ from the network's by 1 of their size"),
    "no layer": (nn.Flatten, r"nothing in this network can be held in 8 bits"),
}


@pytest.mark.parametrize(("make", "message"), SAYS_NOTHING.values(), ids=SAYS_NOTHING)
def test_a_file_that_would_say_nothing_is_not_kept(make, message, tmp_path):
    with torch.random.fork_rng(devices=[]):
        net = make()
    pixels = torch.linspace(-1, 1, 64).view(16, 1, 2, 2)
    with pytest.raises(ExportError, match=message):
        export(net, tmp_path / "net.onnx", (1, 2, 2), quantize="int8", images=pixels)
    assert not list(tmp_path.iterdir())
