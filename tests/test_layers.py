"""Every option of every layer: gradient, extraction, costs and export."""

import onnxruntime
import pytest
import torch
from tests.costs import COSTS
from tests.layers import LAYERS, chain
from tests.oracle import masked
from tests.spaces import images, seeded
from tests.test_gradient import relaxed

from boundnas import calibrate, export, extract, guard
from boundnas.randomness import stream

every = pytest.mark.parametrize("name", LAYERS)
EXPORTED = (
    "one of two kernels", "searched, replicated", "sequences in groups", "volumes", "embedding",
    "joined",
)  # fmt: skip
"""In every profile; the others in the full one."""


def built(name):
    return seeded(lambda: chain(name))


def architectures(space):
    return [space.smallest, space.largest, *(space.sample(stream(i, "layers")) for i in range(3))]


def gradients(model, x, arch):
    """Of every option of every dimension, and of the weights."""
    arch = relaxed(arch)
    inputs = [*arch.gates, *model.parameters()]
    loss = model(x, arch).square().sum()
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


@every
def test_the_gradient_of_every_option_is_that_of_the_masked_pass(name):
    model = built(name).double()
    x = images(model, 4)
    for arch in architectures(model.space):
        found = gradients(model, x, arch)
        with masked(model):
            expected = gradients(model, x, arch)
        scale = max(float(e.abs().max()) for e in expected)
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-11 * scale, msg=str(arch))


@every
def test_extraction_is_bit_for_bit_and_costs_are_counted(name):
    model = built(name).eval()
    x = images(model, 3, seed=1)
    found = {cost: make(model) for cost, (make, _) in COSTS.items() if cost != "bytes"}
    for arch in architectures(model.space):
        arch = calibrate(model, arch, [images(model, 8)])
        net = extract(model, arch)
        with torch.no_grad():
            assert torch.equal(net(x), model(x, arch)), arch
        for cost, held in found.items():
            assert held(arch) == COSTS[cost][1](net, x[:1]), (cost, arch)


@every
def test_the_guard_accepts_it(name):
    guard.check(built(name))


@every
def test_it_is_exported(name, full, tmp_path):
    if not full and name not in EXPORTED:
        pytest.skip("in the full profile")
    model = built(name)
    x = images(model, 2, seed=1)
    arch = calibrate(model, model.space.sample(stream(0, "exported")), [images(model, 8)])
    net = extract(model, arch)
    path = export(net, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x), rtol=1e-4, atol=1e-5)
