"""Every option of every layer: gradient, extraction, costs and export."""

import copy
import itertools

import onnxruntime
import pytest
import torch
from tests.costs import COSTS, counted_macs
from tests.layers import LAYERS, MODELS, Chain, Residual, chain, normed, normed_pixels
from tests.oracle import masked
from tests.spaces import images, seeded
from tests.test_gradient import relaxed

from boundnas import calibrate, elastic, export, extract, guard
from boundnas.cost import MACs
from boundnas.errors import SpaceError
from boundnas.fit.start import check_forward
from boundnas.guard.learnable import check_learnable
from boundnas.randomness import stream
from boundnas.space import Architecture, Joined
from boundnas.supernet.paths import paths

RECURRENT = ("LSTM both ways", "GRU", "plain recurrent layers")
every = pytest.mark.parametrize("name", [*LAYERS, *MODELS])
EXPORTED = (
    "one of two kernels", "searched, replicated", "sequences in groups", "volumes", "embedding",
    "joined", "activations", "group norms", "transposed", "normalized sequences",
    "attention of grouped queries", "attention to others", "attention within windows",
    "the next token", "RMS norm",
)  # fmt: skip
"""In every profile; the others in the full one."""


def built(name):
    return seeded(lambda: chain(name))


def architectures(space):
    return [space.smallest, space.largest, *(space.sample(stream(i, "layers")) for i in range(3))]


def gradients(model, x, arch, fraction=1.0):
    """Of every option of every dimension, and of the weights."""
    weight = next(model.parameters())
    gates = [g.detach().to(weight).requires_grad_() for g in relaxed(arch).gates]
    arch = arch.plain.carrying(gates=tuple(gates), ghost_fraction=fraction)
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
def test_a_part_of_the_batch_stands_for_samples_like_it(name):
    model = built(name).double()
    x = images(model, 2).repeat_interleave(2, 0)[[0, 2, 1, 3]]
    for arch in architectures(model.space)[2:]:
        found = gradients(model, x, arch, 0.5)
        for f, e in zip(found, gradients(model, x, arch), strict=True):
            torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9 * float(e.abs().max()))


@every
def test_single_precision_keeps_the_gradient(name):
    model = built(name)
    twin, x = copy.deepcopy(model).double(), images(model, 4)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    arch = model.space.sample(stream(3, "layers"))
    exact = gradients(twin, x.double() if x.is_floating_point() else x, arch)
    number = len(model.space.dimensions)
    for group in (slice(0, number), slice(number, None)):  # gates, weights
        found = torch.cat([g.flatten() for g in gradients(model, x, arch)[group]])
        expected = torch.cat([g.flatten() for g in exact[group]])
        assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-6


@every
def test_extraction_is_bit_for_bit_and_costs_are_counted(name):
    model = built(name).eval()
    x = images(model, 3, seed=1)
    unknown = ("bytes", "peak memory") if name in RECURRENT else ("bytes",)
    found = {cost: make(model) for cost, (make, _) in COSTS.items() if cost not in unknown}
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


@pytest.mark.parametrize(
    "name",
    [
        "expansion or none",
        "choices within choices",
        "resolutions",
        "split",
        "transposed",
        "shortcuts of some widths",
        "shortcuts that project other widths",
        "widths of two dimensions",
        "options of two dimensions",
    ],
)
def test_what_is_chosen_as_a_whole_is_learned(name):
    model = built(name)
    check_learnable(model)
    check_forward(model)


def test_where_a_projection_is_used_follows_from_its_widths():
    uses = paths(built("shortcuts that project other widths")).uses
    projections = [use for name, use in uses.items() if name.endswith("projection")]
    assert len(projections) == 5
    assert not any(use.dimensions for use in projections)


def one_of_many(net):
    """A layer that one combination of two dimensions has, which is none of those at an end."""
    other = net.dimension("other", (1, 2, 3), "other")
    rare = net.kernel.map(lambda k, r: (k, r) == (1, 2), other)
    conv = elastic.Conv2d(net.width, net.width, net.kernel)
    return [
        elastic.Conv2d(2, net.width, net.kernel),
        elastic.Choice(rare, {True: conv, False: None}),
    ], net.width


def test_a_choice_of_several_dimensions_is_tried_in_all_combinations():
    model = seeded(lambda: Chain((2, 6, 6), one_of_many)).eval()
    macs, x, space = MACs(model), images(model, 1), model.space
    for indices in itertools.product(*(range(len(d)) for d in space.dimensions)):
        arch = Architecture(space, indices)
        assert macs(arch) == counted_macs(extract(model, arch), x), arch


def test_parts_by_sizes_are_learned():
    model = built("chunks")
    with pytest.raises(SpaceError, match="no gradient of the outputs reaches kernel"):
        check_learnable(model)  # which has none; nothing else is refused


@pytest.mark.parametrize(("name", "searched"), [("expansion alone", 2), ("resolutions", 2)])
def test_the_cost_of_every_option_of_a_choice_is_its_own(name, searched):
    model = built(name)
    macs, dimension = MACs(model), model.space.dimensions[searched]
    for arch in architectures(model.space):
        gates = relaxed(arch)
        macs.relaxed(gates).backward()
        found = gates.gates[searched].grad
        options = [arch.with_option(dimension, j) for j in range(len(dimension))]
        expected = torch.tensor([macs(each) - macs(arch) for each in options])
        torch.testing.assert_close(found - found[arch.indices[searched]], expected.to(found))


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


def batch_norm(net):
    return elastic.BatchNorm2d(net.width)


def own_map(net):
    return Residual(elastic.Activation(), elastic.Linear(net.width, net.width))


AFTER_A_NORM = {
    "softmax": (normed(lambda net: lambda x: x.softmax(-1)), "softmax .* mixes channels"),
    "a mean over channels": (
        normed(lambda net: lambda x: x - x.mean(-1, keepdim=True)), "mean .* mixes channels",
    ),
    "channels turned around": (normed(lambda net: lambda x: x.flip(-1)), "flip .* mixes channels"),
    "tokens and channels in one": (normed(lambda net: lambda x: x.flatten(1)), "flatten .* mixes"),
    "a weight of each channel": (
        normed(lambda net: lambda x: x * torch.arange(6)), "mul .* fails in the architecture",
    ),
    "samples turned around": (normed(lambda net: lambda x: x + x.flip(0)), "flip .* mixes samples"),
    "side by side": (
        normed(lambda net: lambda x: torch.cat([x, x], -1)), "cat of a map that was normalized",
    ),
    "channels first": (
        normed(lambda net: lambda x: x.transpose(1, 2)), r"Linear\) gets .* channels on axis 1",
    ),
    "batch normalization": (normed_pixels(batch_norm), r"BatchNorm2d\) .* every option of it has"),
    "squeeze and excite": (
        normed_pixels(lambda net: elastic.SqueezeExcite(net.width)),
        "SqueezeExcite.* every option of it has",
    ),
    "products with another map": (
        normed(lambda net: Gram(own_map(net))),
        "matmul of a map that was normalized .* with others",
    ),
}  # fmt: skip


class Gram(Residual):
    """Products of a normed map's channels with those of another."""

    def __init__(self, own):
        super().__init__(own.first, own.second)

    def forward(self, x, arch):
        y = self.second(x, arch)
        return x @ (y.transpose(1, 2) @ x)


@pytest.mark.parametrize("name", AFTER_A_NORM)
def test_what_does_not_stand_after_a_norm_is_refused_by_name(name):
    case, message = AFTER_A_NORM[name]
    with pytest.raises(SpaceError, match=message):
        guard.check(seeded(lambda: Chain(*case)))


def test_a_norm_takes_channels_that_lie_last():
    def make(net):
        return [elastic.Conv2d(2, net.width), elastic.LayerNorm(net.width)], net.width

    with pytest.raises(SpaceError, match=r"LayerNorm\) gets .* on axis 1 .* channels on the last"):
        guard.check(seeded(lambda: Chain((2, 6, 6), make)))


@pytest.mark.parametrize("kind", [elastic.LayerNorm, elastic.RMSNorm])
def test_a_norm_of_joined_widths_is_refused(kind):
    with pytest.raises(SpaceError, match=f"{kind.__name__}: a norm is over one width, found"):
        kind(Joined((2, 3)))


@every
def test_a_convolution_takes_scale_and_shift_of_its_outputs_into_itself(name):
    model, seen = built(name).double().eval(), []
    convolutions = [m for m in model.modules() if isinstance(m, elastic.Convolution)]
    for module in convolutions:
        module.register_forward_hook(lambda *call: seen.append(call))
    arch = model.space.sample(stream(2, "layers"))
    model(images(model, 2), calibrate(model, arch, [images(model, 8)]))
    for module, (x, arch), y in seen[-len(convolutions) :] if convolutions else ():
        draw = torch.Generator().manual_seed(0)
        scale, shift = torch.randn(2, y.shape[1], dtype=y.dtype, generator=draw)
        found = module.scaled(x, arch, scale, shift)
        expected = (y.flatten(2) * scale[:, None] + shift[:, None]).view(y.shape)
        torch.testing.assert_close(found, expected)
