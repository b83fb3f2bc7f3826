import math
from functools import partial

import pytest
import torch
from tests.small import mobilenet
from tests.spaces import images, seeded
from torch import nn
from torch.nn import functional as F

from boundnas import Architecture, Dimension, SearchSpace, Supernet, elastic
from boundnas.elastic import normalization
from boundnas.elastic.ghost import Ghosted, join, split
from boundnas.elastic.normalization import aligned
from boundnas.errors import SpaceError
from boundnas.randomness import stream
from boundnas.space import Joined

WIDTH = Dimension("width", (2, 4, 6))
OUT = Dimension("out", (3, 5))
KERNEL = Dimension("kernel", (1, 3, 5), "kernel")
FUNCTION = Dimension("function", ("relu", "swish"), "activation")
FUNCTIONS = {"relu": F.relu, "swish": F.silu}
SE = Dimension("se", (False, True), "se")
DEPTH = Dimension("depth", (1, 2), "depth")
SPACE = SearchSpace([WIDTH, OUT, KERNEL, FUNCTION, SE, DEPTH])
ARCHITECTURES = [SPACE.sample(stream(0, "architecture", i)) for i in range(12)]

LAYERS = {
    "conv": lambda: elastic.Conv2d(WIDTH, OUT, KERNEL, bias=True),
    "strided conv": lambda: elastic.Conv2d(WIDTH, OUT, KERNEL, stride=2),
    "depthwise": lambda: elastic.DepthwiseConv2d(WIDTH, KERNEL, bias=True),
    "strided depthwise": lambda: elastic.DepthwiseConv2d(WIDTH, KERNEL, stride=2),
    "linear": lambda: elastic.Linear(WIDTH, OUT),
    "linear without bias": lambda: elastic.Linear(WIDTH, OUT, bias=False),
    "linear on tokens": lambda: elastic.Linear(WIDTH, OUT),
    "linear on a grid of tokens": lambda: elastic.Linear(WIDTH, OUT, bias=False),
    "batch norm": lambda: elastic.BatchNorm2d(WIDTH),
    "activated batch norm": lambda: elastic.BatchNorm2d(WIDTH, activation=FUNCTION),
    "activation": lambda: elastic.Activation(FUNCTION),
    "squeeze-excite": lambda: elastic.SqueezeExcite(WIDTH, SE),
}


def layer_of(name):
    """A layer with random weights and biases."""
    return seeded(LAYERS[name])


AROUND = {"linear on tokens": (5,), "linear on a grid of tokens": (2, 3)}
"""Axes between those of samples and features."""


def inputs_of(name, arch, size=3):
    c = arch.size(WIDTH)
    shape = (*AROUND.get(name, ()), c) if name.startswith("linear") else (c, 6, 6)
    return torch.randn(size, *shape, generator=stream(0, "inputs"))


def relaxed(arch, fraction=1.0, noise=None):
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).float().requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    return arch.plain.carrying(gates=gates, ghost_fraction=fraction, noise=noise)


def by_hand(layer, x, arch):
    """What a layer computes, from the full weights and the values of the architecture."""
    c, o = arch[WIDTH], arch[OUT]
    if isinstance(layer, elastic.Linear):
        return F.linear(x, layer.weight[:o, :c], None if layer.bias is None else layer.bias[:o])
    if isinstance(layer, elastic.BatchNorm2d):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        scale, shift = (p[:c, None, None] for p in (layer.weight, layer.bias))
        y = (x - mean) / (var + layer.eps).sqrt() * scale + shift
        return y if layer.activation is None else FUNCTIONS[arch[FUNCTION]](y)
    if isinstance(layer, elastic.Activation):
        return FUNCTIONS[arch[FUNCTION]](x)
    if isinstance(layer, elastic.SqueezeExcite):
        return x * squeeze_by_hand(layer, x, c) if arch[SE] else x
    k, margin = arch[KERNEL], (5 - arch[KERNEL]) // 2
    weight = layer.weight[..., margin : margin + k, margin : margin + k]
    groups = c if isinstance(layer, elastic.DepthwiseConv2d) else 1
    weight = weight[:o, :c] if groups == 1 else weight[:c]
    bias = None if layer.bias is None else layer.bias[: len(weight)]
    return F.conv2d(x, weight, bias, layer.window.stride, k // 2, groups=groups)


def squeeze_by_hand(layer, x, c):
    h = max(1, c // 4)
    squeezed = F.linear(x.mean((2, 3)), layer.reduce.weight[:h, :c], layer.reduce.bias[:h])
    scale = F.linear(squeezed.relu(), layer.expand.weight[:c, :h], layer.expand.bias[:c])
    return scale.sigmoid()[:, :, None, None]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_leading_slice_of_its_weights(name):
    layer = layer_of(name)
    for arch in ARCHITECTURES:
        x = inputs_of(name, arch)
        torch.testing.assert_close(layer(x, arch), by_hand(layer, x, arch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_pure_and_leaves_its_input(name):
    layer, arch = layer_of(name), SPACE.largest
    x = inputs_of(name, arch)
    before = x.clone()
    first = layer(x, arch)
    layer(inputs_of(name, SPACE.smallest), SPACE.smallest)
    assert torch.equal(layer(x, arch), first)
    assert torch.equal(x, before)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("name", LAYERS)
def test_ghosts_are_the_channels_of_the_largest_width_on_part_of_the_batch(name, fraction):
    layer, axis = layer_of(name), -1 if name.startswith("linear") else 1
    produces = OUT if name.startswith(("conv", "strided conv", "linear")) else WIDTH
    for arch in ARCHITECTURES:
        x = inputs_of(name, arch, size=4)
        if arch[WIDTH] < 6:
            shape = list(x.shape)
            shape[0], shape[axis] = max(2, round(4 * fraction)), 6 - arch[WIDTH]
            x = join(x, torch.randn(shape, generator=stream(0, "ghost")))
        y, ghost = split(layer(x, relaxed(arch, fraction)))
        assert torch.equal(y, layer(split(x)[0], arch))
        if arch[produces] == produces.choices[-1]:
            assert ghost is None
        else:
            assert len(ghost) == max(2, 4 * fraction // 1)
            assert ghost.shape[axis] + y.shape[axis] == produces.choices[-1]
            assert ghost.movedim(axis, -1).shape[1:-1] == y.movedim(axis, -1).shape[1:-1]
            assert not ghost.requires_grad


def test_functions_between_layers_act_on_the_ghost_too():
    x, ghost = torch.randn(4, 2, 6, 6, generator=stream(0, "x")), torch.full((2, 3, 6, 6), -2.0)
    ghosted = join(x, ghost)
    for function in (F.relu, torch.tanh, lambda t: F.max_pool2d(t, 2), lambda t: t.mean((2, 3))):
        y = function(ghosted)
        assert isinstance(y, Ghosted)
        assert torch.equal(split(y)[0], function(x))
        assert torch.equal(y.ghost, function(ghost))
    y = ghosted + F.avg_pool2d(ghosted, 3, 1, 1)
    assert torch.equal(y.ghost, ghost + F.avg_pool2d(ghost, 3, 1, 1))
    assert ghosted.shape == x.shape
    assert split(x) == (x, None)


class Mismatched(Supernet):
    """The second layer is built with another dimension than the first."""

    def __init__(self, second):
        super().__init__((3, 6, 6))
        self.block = nn.Module()
        self.block.first = elastic.Conv2d(3, self.dimension("a", (2, 4)))
        self.block.second = second(self.dimension("b", (3, 5)))

    def forward(self, x, arch):
        x = self.block.first(x, arch)
        if isinstance(self.block.second, elastic.Linear):
            x = x.mean((2, 3))
        return self.block.second(x, arch)


@pytest.mark.parametrize(
    "second",
    [
        lambda width: elastic.Conv2d(width, 2),
        lambda width: elastic.DepthwiseConv2d(width),
        lambda width: elastic.BatchNorm2d(width),
        lambda width: elastic.Linear(width, 2),
    ],
    ids=["Conv2d", "DepthwiseConv2d", "BatchNorm2d", "Linear"],
)
def test_a_width_that_does_not_fit_names_the_layer(second, request):
    model = seeded(lambda: Mismatched(second))
    kind = request.node.callspec.id
    message = rf"block\.second \({kind}\) expects 3 input channels in this architecture, found 2;"
    with pytest.raises(SpaceError, match=message):
        model(images(model, 2), model.space.smallest)


def test_a_shortcut_names_the_map_that_does_not_fit():
    shortcut, arch = elastic.Shortcut(WIDTH, OUT), SPACE.smallest
    x, y = (torch.zeros(1, arch.size(width), 2) for width in (WIDTH, OUT))
    assert torch.equal(shortcut(y, x, arch), y)
    for pair, found in (((x, y), "y has 3 channels .* found 2"), ((y, y), "x has 2 .* found 3")):
        with pytest.raises(SpaceError, match=rf"\(Shortcut\): {found}; it is called as"):
            shortcut(*pair, arch)
    with pytest.raises(SpaceError, match="its input that were not chosen did not arrive"):
        shortcut(y, x, relaxed(arch))


def layers(number):
    return [elastic.Activation() for _ in range(number)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: elastic.Conv2d(3, 4, 2), "kernel of 2 .* has no centre, .* give the padding as a"),
        (
            lambda: elastic.Conv2d(3, 4, Dimension("k", (3, 4, 6))),
            r"must be odd so that they share a centre, found \[4, 6\]",
        ),
        (lambda: elastic.DepthwiseConv2d(3, Dimension("k", (2, 3))), r"found \[2\]"),
        (lambda: elastic.DepthwiseConv2d(3, -1), "kernel_size must be .* found -1"),
        (
            lambda: elastic.GroupNorm(WIDTH, 4),
            "GroupNorm: channels come in whole groups of 4, found 2",
        ),
        (lambda: elastic.SqueezeExcite(4, gate="tan"), "unknown activation 'tan'"),
        (lambda: elastic.SqueezeExcite(4, activation="tan"), "unknown activation 'tan'"),
        (
            lambda: elastic.ConvTranspose1d(WIDTH, 3, 3, stride=2, output_padding=2),
            r"ConvTranspose1d: output_padding is below the stride or the dilation, found \(2,\)",
        ),
        (
            lambda: elastic.ConvTranspose2d(3, 4, KERNEL, stride=2),
            r"a kernel of one pixel with a stride of \(2, 2\) leaves the pixels between empty",
        ),
        (lambda: elastic.ConvTranspose2d(3, 4, 2, stride=2), "of 2 .* no centre, .* as a number"),
        (
            lambda: elastic.Choice(DEPTH, {1: None, 3: None}),
            "for each value of a dimension, found values 1, 2 and alternatives for 1, 3",
        ),
        (lambda: elastic.Choice(1, {1: None}), "for each value of a dimension, found values 1 and"),
        (lambda: elastic.Resized(nn.Identity(), Dimension("r", (0, 8))), "size must be .* found 0"),
        (lambda: elastic.Shortcut(0, WIDTH), "Shortcut: inputs must be .* found 0"),
        (lambda: elastic.BatchNorm2d(4, eps=-1e-5), "BatchNorm2d: eps .* at least 0, found -1e-05"),
        (
            lambda: elastic.GroupNorm(4, 2, eps=math.nan),
            "GroupNorm: eps .* at least 0, found nan",
        ),
        (lambda: elastic.LayerNorm(WIDTH, eps=-1), "LayerNorm: eps .* of at least 0, found -1"),
        (lambda: elastic.RMSNorm(WIDTH, eps=math.inf), "RMSNorm: eps .* of at least 0, found inf"),
        (
            lambda: elastic.Linear(4, 1 << 31),
            "must be a whole number below 2,147,483,648, found",
        ),
        (lambda: elastic.Parameter((4,), std=-1.0), "of at least 0, found 0.0 and -1.0"),
        (lambda: elastic.Parameter((4,), mean=math.nan), "of at least 0, found nan and 0.02"),
        (lambda: elastic.Activation(["relu"]), r"unknown activation \['relu'\]; allowed are relu"),
        (lambda: elastic.Stage(layers(2), "2"), "takes depths from 1 to 2, .* found 2"),
        (lambda: elastic.Split(Joined((2, WIDTH)), axis=2), "on axis 1 or -1, found 2"),
        (lambda: Joined(()), "at least one part, found none"),
        (
            lambda: Joined((3, Joined((0,)))),
            "part 0 of a joined width: channels must be .* found 0",
        ),
        (
            lambda: elastic.Conv2d(Joined((4, WIDTH)), Joined((WIDTH, 4)), group_width=2),
            "follow one dimension, in one ratio",
        ),
        (lambda: elastic.Conv2d(Joined((4, WIDTH)), WIDTH, group_width=2), "follow one dimension"),
        (
            lambda: elastic.Conv2d(3, 4, KERNEL, padding=1, dilation=2),
            r"a kernel of 1 within one of 5 with a padding of 1 and .* 2 leaves out pixels",
        ),
        (lambda: elastic.Conv2d(3, 4, (3, 3, 3)), r"one size or 2 of them, found \(3, 3, 3\)"),
        (lambda: elastic.Conv2d(3, 4, 3, (1, 2, 3)), r"stride is a number or 2 of them, found"),
        (lambda: elastic.Conv1d(3, 4, 3, padding=-1), "Conv1d: padding must be .* at least 0"),
        (lambda: elastic.Conv1d(3, 4, 3, padding="full"), "numbers, 'same' or 'valid', found 'ful"),
        (lambda: elastic.Conv1d(3, 4, 3, padding_mode="wrap"), "is one of zeros, .* found 'wrap'"),
        (lambda: elastic.Conv2d(WIDTH, 4, groups=2), "2, divides two fixed widths; .* group_width"),
        (lambda: elastic.Conv2d(3, 4, groups=2), "a number of groups, 2, divides two fixed widths"),
        (lambda: elastic.Conv2d(4, 4, groups=2, group_width=2), "groups or group_width, found 2"),
        (lambda: elastic.Conv2d(WIDTH, WIDTH, group_width=4), "whole groups of 4, found 2; let"),
        (lambda: elastic.Conv2d(WIDTH, OUT, group_width=2), "with group_width=2 the input and out"),
        (lambda: elastic.Conv2d(WIDTH, 6, group_width=2), "follow one dimension, in one ratio"),
        (
            lambda: elastic.Conv2d(WIDTH, WIDTH.map(lambda c: c + 2), group_width=2),
            r"found \[\(2, 4, 6\)\] and \[\(4, 6, 8\)\]",
        ),
        (
            lambda: elastic.Conv2d(WIDTH, WIDTH.map(lambda c: c // 2), group_width=4),
            "whole groups of 4, found 2",
        ),
        (
            lambda: elastic.Activation("rrelu"),
            "unknown activation 'rrelu'; allowed are relu, swish",
        ),
        (
            lambda: elastic.BatchNorm2d(4, activation="ReLU"),
            "unknown activation 'ReLU'; allowed are relu, swish",
        ),
        (
            lambda: elastic.Activation(Dimension("a", ("relu", "tan"))),
            "unknown activation 'tan'; allowed are relu, swish",
        ),
        (
            lambda: elastic.Stage(layers(2), 3),
            "a stage of 2 layers takes depths from 1 to 2, the largest included; found 3",
        ),
        (lambda: elastic.Stage(layers(3), Dimension("d", (1, 2))), "of 3 layers .* found 1, 2"),
        (lambda: elastic.Stage(layers(2), Dimension("d", (0, 2))), "of 2 layers .* found 0, 2"),
        (lambda: elastic.Stage([], 0), "a stage of 0 layers"),
        (lambda: elastic.Dropout(1.0), r"a drop probability lies in \[0, 1\), found 1\.0"),
        (
            lambda: elastic.Linear(WIDTH, 6, tied=elastic.Embedding(5, WIDTH)),
            "tied to a table of 5 rows it gives as many numbers, .* found 6 outputs",
        ),
        (lambda: elastic.Embedding(5, WIDTH, 5), "padding_idx is a row of 5, found 5"),
        (
            lambda: elastic.Parameter((WIDTH, 3, OUT)),
            r"one of its sizes at most is searched, found \(width, 3, out\)",
        ),
        (lambda: elastic.Parameter(()), r"found \(\)"),
        (
            lambda: elastic.Recurrent("rnn", WIDTH, OUT),
            "the kind is one of lstm, gru, tanh, relu, found 'rnn'",
        ),
        (lambda: elastic.Parameter((2, 0)), "size must be a whole number of at least 1, found 0"),
        (
            lambda: elastic.MultiheadAttention(4, Dimension("heads", (2, 3, 4, 5)), 3, group=2),
            "heads come in groups of 2 that share keys and values, found 3, 5",
        ),
        (lambda: elastic.MultiheadAttention(Joined((2, 2)), 2, 3), "of joined features, say out_"),
        (lambda: elastic.Dropout(axis=2), "Dropout: channels lie on axis 1 or -1, found 2"),
        (lambda: elastic.RReLU(0.5, 0.1), r"RReLU: slopes ascend in \[0, 1\], found 0\.5 and 0\.1"),
        (lambda: elastic.RReLU(axis=2), "RReLU: channels lie on axis 1 or -1, found 2"),
        (lambda: elastic.DropConnect(-0.1), r"a drop probability lies in \[0, 1\), found -0\.1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_reason(make, message):
    with torch.random.fork_rng(devices=[]), pytest.raises(SpaceError, match=message):
        make()


@pytest.mark.parametrize("depth", DEPTH.choices)
def test_a_stage_runs_its_first_layers(depth):
    layers = [seeded(lambda: elastic.Conv2d(2, 2, bias=True), seed) for seed in (0, 1)]
    stage, x = elastic.Stage(layers, DEPTH), torch.randn(2, 2, 4, 4, generator=stream(0, "x"))
    arch = SPACE.architecture(SPACE.smallest.values | {"depth": depth})
    expected = x
    for layer in layers[:depth]:
        expected = layer(expected, arch)
    assert torch.equal(stage(x, arch), expected)
    assert len(stage) == 2


def noisy(arch, seed=0, relax=False):
    noise = stream(seed, "noise")
    return relaxed(arch, noise=noise) if relax else arch.plain.carrying(noise=noise)


DROPS = [elastic.Dropout, elastic.DropConnect]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("drop", DROPS)
def test_drops_act_only_where_the_architecture_brings_noise(drop, training):
    layer, x = drop(0.5).train(training), torch.ones(50, 6, 2, 2)
    assert torch.equal(layer(x, SPACE.largest), x)
    assert not torch.equal(layer(x, noisy(SPACE.largest)), x)
    assert torch.equal(layer(x, noisy(SPACE.largest)), layer(x, noisy(SPACE.largest)))
    assert torch.equal(drop(0.0)(x, noisy(SPACE.largest)), x)
    assert layer.plain(SPACE.largest) is None


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("drop", DROPS)
def test_drops_zero_their_share_and_preserve_the_expectation(drop, probability):
    y = drop(probability)(torch.ones(20000, 6), noisy(SPACE.largest))
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - probability)])
    deviation = (probability / (1 - probability) / 20000) ** 0.5
    assert y.mean(0).tolist() == pytest.approx([1] * 6, abs=4.5 * deviation)


def test_dropout_of_tokens_draws_per_element():
    x = torch.ones(40, 6, 9)
    y, ghost = split(
        elastic.Dropout(0.5, axis=-1)(join(x[..., :4], x[:7, :, 4:]), noisy(SPACE.largest))
    )
    whole = elastic.Dropout(0.5, axis=-1)(x, noisy(SPACE.largest))
    assert torch.equal(y, whole[..., :4])
    assert torch.equal(ghost, whole[:7, :, 4:])
    for axis in range(3):
        assert not torch.equal(whole, whole.narrow(axis, 0, 1).expand_as(x))


def test_dropout_of_pixels_draws_per_entry_wherever_channels_lie():
    x = torch.ones(40, 6, 3, 3)
    drop = elastic.Dropout(0.5, pixels=True)
    y, ghost = split(drop(join(x[:, :4], x[:7, 4:]), noisy(SPACE.largest)))
    whole = drop(x, noisy(SPACE.largest))
    assert torch.equal(torch.cat([y[:7], ghost], 1), whole[:7])
    for axis in range(4):
        assert not torch.equal(whole, whole.narrow(axis, 0, 1).expand_as(x))


@pytest.mark.parametrize("drop", [partial(elastic.Dropout, axis=-1), elastic.DropConnect])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_every_option_of_a_normed_map_shares_the_draw_of_the_full_width(drop, fraction):
    layer, x = drop(0.5), torch.ones(8, 5, 6)
    whole, norm = layer(x, noisy(SPACE.largest)), seeded(lambda: elastic.LayerNorm(WIDTH))
    for width in WIDTH.choices:
        arch = Architecture(SPACE, (WIDTH.index(width), *SPACE.largest.indices[1:]))
        gated = relaxed(arch, fraction, noise=stream(0, "noise"))
        few = round(8 * fraction)
        y = norm(x[..., :width] if width == 6 else join(x[..., :width], x[:few, :, width:]), gated)
        y = y + torch.ones(8, 1, 1)
        dropped = layer(y, gated)
        assert torch.equal(dropped.active, y.active * whole[..., :width])
        for c, before, after in zip(
            WIDTH.choices, y.options.maps, dropped.options.maps, strict=True
        ):
            assert before.shape == (few, 5, c)
            assert torch.equal(after, before * whole[:few, :, :c])


DRAWN = {
    "RReLU": (elastic.RReLU(0.1, 0.6, axis=-1), nn.RReLU(0.1, 0.6)),
    "alpha dropout": (elastic.AlphaDropout(0.4, axis=-1), nn.AlphaDropout(0.4)),
}


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize(("layer", "plain"), DRAWN.values(), ids=DRAWN)
def test_every_option_of_a_normed_map_is_drawn_for_as_in_the_full_width(layer, plain, fraction):
    x, norm = torch.ones(8, 5, 6), seeded(lambda: elastic.LayerNorm(WIDTH))
    arch, few = Architecture(SPACE, (0, *SPACE.largest.indices[1:])), round(8 * fraction)
    gated = relaxed(arch, fraction, noise=stream(0, "noise"))
    width = arch.size(WIDTH)
    y = norm(join(x[..., :width], x[:few, :, width:]), gated) - torch.ones(8, 1, 1)
    drawn = layer(y, gated)
    pairs = [(y.active, drawn.active)]
    pairs += zip(y.options.maps, drawn.options.maps, strict=True)
    for before, after in pairs:
        n, _, c = before.shape
        whole = F.pad(before.detach(), (0, 6 - c, 0, 0, 0, 8 - n))
        torch.testing.assert_close(after, layer(whole, noisy(SPACE.largest))[:n, :, :c])


@pytest.mark.parametrize(("layer", "plain"), DRAWN.values(), ids=DRAWN)
def test_values_are_those_of_torch_for_the_draws_that_it_could_make(layer, plain):
    x = torch.linspace(-3, 3, 60).expand(2000, 60)
    y, state = layer(x, noisy(SPACE.largest)), torch.get_rng_state()
    expected = plain.train()(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x, SPACE.largest), plain.eval()(x))
    for function in (torch.amin, torch.amax):
        torch.testing.assert_close(function(y, 0), function(expected, 0), rtol=1e-2, atol=1e-2)
    for moment in (torch.mean, torch.std):
        torch.testing.assert_close(moment(y, 0), moment(expected, 0), rtol=0.1, atol=0.1)


def test_slopes_are_drawn_entry_by_entry_and_extracted_as_their_mean():
    x = -torch.ones(40, 6, 3, 3)
    y = elastic.RReLU(0.1, 0.6)(x, noisy(SPACE.largest))
    for axis in range(4):
        assert not torch.equal(y, y.narrow(axis, 0, 1).expand_as(x))
    assert elastic.RReLU(0.1, 0.6).plain(SPACE.largest).negative_slope == 0.35


def test_dropout_draws_per_channel_and_drop_connect_per_sample():
    x = torch.ones(400, 6, 3, 3)
    channels = elastic.Dropout(0.5)(x, noisy(SPACE.largest))
    samples = elastic.DropConnect(0.5)(x, noisy(SPACE.largest))
    assert torch.equal(channels, channels[:, :, :1, :1].expand_as(x))
    assert not torch.equal(channels, channels[:, :1].expand_as(x))
    assert torch.equal(samples, samples[:, :1, :1, :1].expand_as(x))


@pytest.mark.parametrize("ghosts_in_batch", [8, 3])
@pytest.mark.parametrize("drop", [*DROPS, elastic.AlphaDropout, elastic.RReLU])
def test_ghosts_share_the_draw_of_the_full_width(drop, ghosts_in_batch):
    layer, x = drop(0.5) if drop is not elastic.RReLU else drop(), -torch.ones(8, 6, 2, 2)
    whole = layer(x, noisy(SPACE.largest))
    for width in WIDTH.choices[:-1]:
        arch = Architecture(SPACE, (WIDTH.index(width), *SPACE.largest.indices[1:]))
        parts = join(x[:, :width], x[:ghosts_in_batch, width:])
        y, ghost = split(layer(parts, noisy(arch, relax=True)))
        assert torch.equal(y, whole[:, :width])
        assert torch.equal(ghost, whole[:ghosts_in_batch, width:])


@pytest.mark.parametrize("name", LAYERS)
def test_a_plain_layer_computes_bit_for_bit_the_same(name):
    layer = layer_of(name)
    if not isinstance(layer, elastic.ElasticLayer) or "batch norm" in name:
        return  # made of layers; needs statistics (test_extract)
    for arch in ARCHITECTURES:
        x, plain = inputs_of(name, arch), layer.plain(arch)
        assert torch.equal(plain(x), layer(x, arch))
        assert sum(p.numel() for p in plain.parameters()) == count(layer.parameter_count(), arch)


def count(polynomial, arch):
    total = 0
    for coefficient, factors in polynomial.terms:
        for factor in factors:
            coefficient *= factor.table[arch.indices[SPACE.position(factor.dimension)]]
        total += coefficient
    return total


def test_initial_weights_have_the_variance_of_their_fan():
    conv = seeded(lambda: elastic.Conv2d(64, 32, 3))
    depthwise = seeded(lambda: elastic.DepthwiseConv2d(512, 5))
    assert conv.weight.var().item() == pytest.approx(2 / (32 * 9), rel=0.05)
    assert depthwise.weight.var().item() == pytest.approx(2 / 25, rel=0.05)


def test_learned_maps_start_at_their_mean_and_a_padding_row_stays_at_zero():
    held = seeded(lambda: elastic.Parameter((4000, WIDTH), mean=3.0, std=0.5)).weight
    assert held.mean().item() == pytest.approx(3, abs=0.02)
    assert held.std().item() == pytest.approx(0.5, abs=0.02)
    table = seeded(lambda: elastic.Embedding(3, WIDTH, padding_idx=1))
    assert table.weight[1].tolist() == [0] * 6
    table(torch.tensor([[0, 1]]), SPACE.smallest).sum().backward()
    assert table.weight.grad.sum(1).tolist() == [2, 0, 0]


@pytest.mark.parametrize("name", ["conv", "linear"])
def test_a_layer_that_gets_only_the_chosen_channels_refuses_a_wrong_gradient(name):
    layer, arch = layer_of(name), SPACE.smallest
    layer.name = "neck"
    with pytest.raises(SpaceError, match=r"neck \(\w+\): the channels that were not chosen did"):
        layer(inputs_of(name, arch), relaxed(arch))


def test_the_smallest_part_of_a_batch_can_be_normalized_where_a_map_has_one_pixel():
    conv, norm = seeded(lambda: elastic.Conv2d(3, WIDTH)), elastic.BatchNorm2d(WIDTH)
    x = torch.randn(4, 3, 1, 1, generator=stream(0, "x"))
    ghost = split(norm(conv(x, arch := relaxed(ARCHITECTURES[0], 1e-9)), arch))[1]
    assert len(ghost) == 2
    assert ghost.isfinite().all()


class OfAGPU(torch.Tensor):
    """A tensor that says that it is not in the CPU's memory."""

    is_cpu = False


@pytest.mark.parametrize("start", range(5))
def test_scales_and_shifts_on_a_gpu_begin_at_16_bytes(start):
    whole = torch.arange(12.0)
    here, there = whole[start:], whole[start:].as_subclass(OfAGPU)
    assert aligned(here).data_ptr() == here.data_ptr()
    found = aligned(there)
    assert found.data_ptr() % 16 == 0
    assert (found.data_ptr() == there.data_ptr()) == (start % 4 == 0)
    assert found.tolist() == whole[start:].tolist()


def test_those_of_channels_that_were_not_chosen_do(monkeypatch):
    seen = []
    monkeypatch.setattr(normalization, "aligned", lambda x: seen.append(x.clone()) or seen[-1])
    model = mobilenet().train()
    gates = tuple(F.one_hot(torch.tensor(0), len(d)).float() for d in model.space.dimensions)
    x = images(model, 4)
    norm = model.stem.norm
    with torch.no_grad():
        norm.weight.copy_(torch.arange(4.0))
    model(x, model.space.smallest.carrying(gates=gates))
    assert [p.tolist() for p in seen[:2]] == [norm.weight[2:].tolist(), norm.bias[2:].tolist()]
