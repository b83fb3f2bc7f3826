"""Weights and statistics in a file of known size, which other programs read."""

import json
import struct

import pytest
import torch
from safetensors.torch import load
from tests.spaces import images, seeded, supernet
from torch import nn

from boundnas import Supernet, calibrate, elastic, export, extract
from boundnas.cost import Bytes
from boundnas.errors import CostError, ExportError
from boundnas.supernet.weights_file import AROUND, entry_size, weights_file

TENSORS = {
    'a name with "quotes" and an ü': torch.arange(3, dtype=torch.int8),
    "double": torch.linspace(0, 1, 6, dtype=torch.float64).reshape(2, 3),
    "half": torch.linspace(-1, 1, 5).half(),
    "brain": torch.linspace(-1, 1, 3).bfloat16(),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "switch": torch.tensor([True, False]),
    "turned": torch.arange(6.0).reshape(3, 2).T,
}


def test_safetensors_reads_what_was_written():
    found = load(weights_file(TENSORS))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_size_is_a_sum_over_tensors_and_each_begins_at_a_multiple_of_its_elements():
    content = weights_file(TENSORS)
    size = sum(entry_size(n) + t.numel() * t.element_size() for n, t in TENSORS.items())
    assert len(content) == AROUND + size
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        assert entry["data_offsets"][0] % TENSORS[name].element_size() == 0
    assert entry_size("x" * 90) - entry_size("x") == 88


def test_an_extracted_network_is_loaded_from_its_weights_file(tmp_path):
    model = supernet("own_stages")
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    net, twin = extract(model, arch), extract(model, arch)
    path = export(net, tmp_path / "net.safetensors")
    for value in twin.state_dict().values():
        value.zero_()
    twin.load_state_dict(load(path.read_bytes()))
    assert torch.equal(twin(images(model, 2)), net(images(model, 2)))


def test_what_safetensors_has_no_name_for_is_refused(tmp_path):
    net = nn.Module()
    net.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ExportError, match=r"odd: no tensor of torch.complex64 .*take .pt2"):
        export(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


class Keeps(elastic.Conv2d):
    """A layer of one's own whose plain form has a buffer."""

    def plain(self, arch):
        found = super().plain(arch)
        found.register_buffer("kept", torch.zeros(found.weight.shape[0]))
        return found


class Buffered(Supernet):
    def __init__(self):
        super().__init__((3, 4, 4))
        self.conv = Keeps(3, self.dimension("width", (2, 4)))

    def forward(self, x, arch):
        return self.conv(x, arch).mean((2, 3))


def test_bytes_of_a_layer_that_keeps_more_than_parameters_are_refused_by_name():
    with pytest.raises(CostError, match=r"bytes: a file of \d+ bytes is counted as \d+, so"):
        Bytes(seeded(Buffered))
