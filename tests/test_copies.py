"""Copies of a block in one network, by which its time is told: laws over every kind of block."""

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import pytest
import torch
from tests.latency import MODELS, Fake, extracted, latency_model

from boundnas.latency.blocks import blocks_of
from boundnas.latency.copies import copies, of_one
from boundnas.latency.onnx_file import onnx_of

every = pytest.mark.parametrize("name", MODELS)


@cache
def blocks(name):
    """One block of each kind of the largest network; not to be changed."""
    model = latency_model(name)
    found = blocks_of(extracted(model, model.space.largest))
    return list({block.kind: block for block in found}.values())


@every
@torch.no_grad()
def test_every_copy_computes_what_the_block_does_with_weights_of_its_own(name):
    for block in blocks(name):
        expected = block.net(*block.inputs)
        pair = copies(block, taps=False)
        many, one = (net(*pair.inputs) for net in (pair.many, pair.one))
        assert len(many) == pair.number * len(expected)
        assert len(one) == len(expected)
        for found in (many, one):
            assert all(map(torch.equal, found, expected)), block.name
        shapes = [y.shape for y in expected] * pair.number
        assert [y.shape for y in many] == shapes
        kept = {p.data_ptr() for p in pair.many.parameters()}
        assert len(kept) == len(list(pair.many.parameters())), "they share weights"
        if own := list(block.net.parameters()):
            values = {p.double().sum().item() for p in pair.many.parameters()}
            assert len(values) > pair.number - 2 or all(not p.any() for p in own)


@every
@torch.no_grad()
def test_both_networks_have_the_same_inputs_and_taps_and_differ_in_copies_alone(name):
    fake = Fake()
    for block in blocks(name):
        pair = copies(block)
        many, one = pair.many(*pair.inputs), pair.one(*pair.inputs)
        assert [y.shape for y in many] == [y.shape for y in one]
        assert all(y.numel() <= y.shape[0] * max(16, y.shape[1]) for y in many if y.dim() > 1)
        found = of_one(fake.takes(pair.many), fake.takes(pair.one), pair.number)
        assert found == fake.nodes(block.net), block.name


@pytest.mark.parametrize("name", ["own_network", "tokens", "elasticized attention by hand"])
def test_a_runtime_leaves_none_of_the_copies_out(name):
    for block in blocks(name):
        pair = copies(block)
        many, one = (optimized(net, pair.inputs) for net in (pair.many, pair.one))
        alone = optimized(block.net, block.inputs)
        for kind in HEAVY & alone.keys():
            assert many[kind] - one[kind] == (pair.number - 1) * alone[kind], (block.name, kind)


HEAVY = {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "FusedGemm"}


def optimized(net, inputs):
    """How many nodes of each kind are left when ONNX Runtime has optimized a network."""
    with TemporaryDirectory() as place:
        path = Path(place, "net.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(path), 3
        onnxruntime.InferenceSession(onnx_of(net, inputs), options)
        return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(("bound", "number"), [(1 << 28, 8), (5.5, 5), (1, 3)])
def test_large_blocks_have_fewer_copies(bound, number, monkeypatch):
    block = blocks("own_network")[0]
    with torch.no_grad():
        held = [*block.net(*block.inputs), *block.net.parameters()]
    size = 4 * sum(x.numel() for x in held)
    monkeypatch.setattr("boundnas.latency.copies.MOST_BYTES", int(bound * size))
    assert copies(block).number == number


def test_a_block_is_not_faster_than_nothing():
    assert of_one(many=100, one=120, number=8) == 0
    assert of_one(many=100 + 7 * 33 + 3, one=100, number=8) == 33
