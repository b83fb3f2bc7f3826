"""The table of layers with their options, each in the middle of a small supernet."""

import torch
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, elastic, models
from boundnas.elastic.activation import FUNCTIONS
from boundnas.space import Joined


class Chain(Supernet):
    """Elastic modules and functions of a map, one after the other.

    Args:
        shape: Of a sample.
        make: From the supernet, which has the dimensions, to the steps and the width of the last.
    """

    def __init__(self, shape, make):
        super().__init__(shape)
        self.width = self.dimension("width", (2, 4, 6))
        self.kernel = self.dimension("kernel", (1, 3, 5), "kernel")
        steps, width = make(self)
        self.steps = nn.ModuleList(s if isinstance(s, nn.Module) else Plain(s) for s in steps)
        self.head = elastic.Linear(width, 3)

    def forward(self, x, arch):
        for step in self.steps:
            x = step(x, arch)
        return self.head(x.flatten(2).mean(2), arch)


class Plain(nn.Module):
    """A function of a map."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, arch):
        return self.function(x)


class Beside(nn.Module):
    """Maps of elastic layers side by side, or the map itself where there is none."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(Plain(lambda x: x) if m is None else m for m in layers)

    def forward(self, x, arch):
        return torch.cat([layer(x, arch) for layer in self.layers], 1)


class Parts(nn.Module):
    """The sum of two maps that lie side by side, and what a layer makes of a third one."""

    def __init__(self, split, third):
        super().__init__()
        self.split, self.third = split, third

    def forward(self, x, arch):
        first, second, rest = self.split(x, arch)
        return first + second.tanh() + self.third(rest, arch)


IMAGE, SEQUENCE, VOLUME = (2, 9, 8), (2, 11), (2, 4, 5, 3)


def _conv2d(**options):
    """A convolution from width to width, after one that gives it."""
    return (
        IMAGE,
        lambda net: (
            [elastic.Conv2d(2, net.width, bias=True), torch.tanh,
             elastic.Conv2d(net.width, net.width, **{"bias": True, **options})],
            net.width,
        ),
    )  # fmt: skip


def _searched(**options):
    """The same with a searched kernel."""
    return (
        IMAGE,
        lambda net: (
            [elastic.Conv2d(2, net.width, bias=True), torch.tanh,
             elastic.Conv2d(net.width, net.width, net.kernel, **options)],
            net.width,
        ),
    )  # fmt: skip


def _kernels(*sizes):
    def make(net):
        tall = net.dimension("tall", (1, 3, 5), "kernel")
        size = tuple({"tall": tall, "kernel": net.kernel}.get(s, s) for s in sizes)
        conv = elastic.Conv2d(net.width, net.width, size, bias=True)
        depthwise = elastic.DepthwiseConv2d(net.width, (tall, net.kernel), stride=(1, 2))
        return [elastic.Conv2d(2, net.width), torch.tanh, conv, depthwise], net.width

    return IMAGE, make


def _groups(layer, shape, **options):
    """Whole groups of two channels, to three outputs each."""

    def make(net):
        wide = net.width.map(lambda c: 3 * c // 2)
        steps = [
            layer(2, net.width, bias=True), torch.tanh,
            layer(net.width, wide, net.kernel, group_width=2, **options), torch.tanh,
            layer(wide, wide, 3, group_width=3, stride=2, bias=True), torch.tanh,
        ]  # fmt: skip
        return steps, wide

    return shape, make


def _along(layer, shape, **options):
    return (
        shape,
        lambda net: (
            [layer(2, net.width, net.kernel, bias=True), torch.tanh,
             layer(net.width, net.width, 3, stride=2, **options), torch.tanh,
             layer(net.width, net.width, 1, group_width=1, stride=2, bias=True)],
            net.width,
        ),
    )  # fmt: skip


def _transposed(layer, conv, shape, **options):
    """A decoder of maps side by side, in groups, dilated."""

    def make(net):
        kernel = net.dimension("wide", (3, 5), "kernel")
        both = Joined((net.width.map(lambda c: 2 * c), net.width))
        steps = [
            conv(2, both, bias=True), torch.tanh,
            layer(both, net.width, kernel, stride=2, output_padding=1, **options), torch.tanh,
            layer(net.width, net.width.map(lambda c: c // 2), net.kernel, group_width=2, bias=True),
            layer(net.width.map(lambda c: c // 2), net.width, (4,) * (len(shape) - 1), 2, 1),
        ]  # fmt: skip
        return steps, net.width

    return shape, make


def _fixed_transposed(net):
    steps = [
        elastic.ConvTranspose2d(2, 4, net.kernel, groups=2, bias=True), torch.tanh,
        elastic.ConvTranspose2d(4, 4, 3, (2, 1), dilation=2, groups=4),
        elastic.Conv2d(4, net.width),
    ]  # fmt: skip
    return steps, net.width


class InTurn(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, arch):
        for layer in self.layers:
            x = layer(x, arch)
        return x


def _expansion(net):
    """Blocks whose expand ratio of one has no expansion, beside larger ones that do."""
    expand = net.dimension("expand", (1, 2, 3), "expand")
    width, wide = net.width, expand.map(lambda e: 6 * e)
    shared = elastic.BatchNorm2d(width)
    narrow = InTurn(
        elastic.DepthwiseConv2d(width, net.kernel), elastic.Conv2d(width, width), shared
    )
    whole = InTurn(
        elastic.Conv2d(width, wide, bias=True), elastic.BatchNorm2d(wide, activation="swish"),
        elastic.Conv2d(wide, width), Beside(None, elastic.Conv2d(width, wide)),
        elastic.Conv2d(Joined((width, wide)), wide), elastic.DepthwiseConv2d(wide, net.kernel),
        elastic.Conv2d(wide, width), shared,
    )  # fmt: skip
    steps = [
        elastic.Conv2d(2, width, 3, bias=True),
        elastic.Choice(expand, {1: narrow, 2: whole, 3: whole}), torch.tanh,
        elastic.Conv2d(width, Joined((wide, width))), torch.tanh,
        elastic.Conv2d(Joined((wide, width)), width),
    ]  # fmt: skip
    return steps, width


def _shortcut(net):
    """A shortcut that two options have, within one of another kind that has none."""
    kind, width = net.dimension("kind", ("a", "b", "c"), "kind"), net.width
    own = kind.map(lambda k: k != "b")
    layer = elastic.Conv2d(width, width, net.kernel, bias=True)
    inner = elastic.Choice(own, {True: None, False: layer})
    outer = InTurn(elastic.PReLU(width), elastic.Choice(kind, {"a": inner, "b": inner, "c": None}))
    both = InTurn(
        Beside(inner, elastic.Conv2d(width, 1)), elastic.Conv2d(Joined((width, 1)), width)
    )
    steps = [
        elastic.Conv2d(2, width, bias=True), outer,
        elastic.Choice(net.kernel, {1: None, 3: both, 5: elastic.Conv2d(width, width, net.kernel)}),
    ]  # fmt: skip
    return steps, width


class Around(nn.Module):
    """A layer and a shortcut around it."""

    def __init__(self, layer, shortcut):
        super().__init__()
        self.layer, self.shortcut = layer, shortcut

    def forward(self, x, arch):
        return self.shortcut(self.layer(x, arch).tanh(), x.sin(), arch)


def _shortcuts(net):
    """Around layers whose widths agree in some options: of two dimensions, of one, of a number."""
    other, width = net.dimension("other", (2, 3, 6, 7)), net.width
    few = width.map(lambda c: {2: 2, 4: 2, 6: 6}[c])

    def around(inputs, outputs, **options):
        layer = elastic.Conv2d(inputs, outputs, **options)
        return Around(layer, elastic.Shortcut(inputs, outputs))

    steps = [
        elastic.Conv2d(2, width, bias=True), around(width, other, kernel_size=net.kernel),
        around(other, width, bias=True), around(width, few), around(few, 4), around(4, 4),
        around(4, width, bias=True), around(width, width),
    ]  # fmt: skip
    return steps, width


def _projected(net):
    """Around layers whose widths agree in some options, or else pass a convolution."""
    other, width = net.dimension("other", (2, 3, 6, 7)), net.width
    few = width.map(lambda c: {2: 2, 4: 2, 6: 6}[c])

    def around(inputs, outputs, kernel=1, **options):
        projection = elastic.Conv2d(inputs, outputs, **options)
        layer = elastic.Conv2d(inputs, outputs, kernel)
        return Around(layer, elastic.Shortcut(inputs, outputs, projection))

    steps = [
        elastic.Conv2d(2, width, bias=True), around(width, other, net.kernel),
        around(other, width, bias=True, kernel_size=net.kernel), around(width, few),
        around(few, 4), around(4, width, bias=True),
    ]  # fmt: skip
    return steps, width


def _pairs(net):
    """Widths that follow two dimensions, in every layer, and side by side."""
    ratio, width = net.dimension("ratio", (1, 2, 3), "expand"), net.width
    hidden = width.map(lambda c, r: c * r, ratio)
    odd = ratio.map(lambda r, c: 2 * abs(c - 3 * r) + 1, width)  # neither rises nor falls
    both = Joined((hidden, width, odd, hidden))
    steps = [
        elastic.Conv2d(2, width, bias=True), torch.tanh,
        elastic.Conv2d(width, hidden, net.kernel, bias=True),
        elastic.BatchNorm2d(hidden, activation="swish"),
        elastic.SqueezeExcite(hidden), elastic.DepthwiseConv2d(hidden, net.kernel, stride=2),
        Beside(None, elastic.Conv2d(hidden, width), elastic.Conv2d(hidden, odd, 3, bias=True),
               elastic.PReLU(hidden)),
        elastic.SqueezeExcite(both, squeezed=odd), torch.tanh,
        elastic.ConvTranspose2d(both, hidden, 2, stride=2, padding=0), torch.tanh,
    ]  # fmt: skip
    return steps, hidden


def _groups_of_pairs(net):
    ratio = net.dimension("ratio", (1, 2, 3), "expand")
    hidden = net.width.map(lambda c, r: c * r, ratio)
    wide = hidden.map(lambda c: 3 * c // 2)
    steps = [
        elastic.Conv2d(2, hidden, bias=True), torch.tanh,
        elastic.Conv2d(hidden, wide, net.kernel, group_width=2, bias=True), torch.tanh,
    ]  # fmt: skip
    return steps, wide


def _options_of_pairs(net):
    """Kernels, activations, switches, depths, choices and sizes that follow two dimensions."""
    ratio, width, kernel = net.dimension("ratio", (1, 2, 4), "expand"), net.width, net.kernel
    smaller = kernel.map(lambda k, r: min(k, 2 * r - 1), ratio)
    function = kernel.map(lambda k, r: ("relu", "swish", "relu")[(k + r) % 3], ratio)
    depth = ratio.map(lambda r, k: {1: (1, 1, 3), 2: (2, 2, 3), 4: (2, 3, 3)}[r][k // 2], kernel)
    layers = [elastic.Conv2d(width, width, smaller, bias=True) for _ in range(3)]
    choice = {False: None, True: elastic.Conv2d(width, width, smaller, bias=True)}
    pool = Plain(lambda x: x.mean((2, 3), keepdim=True))
    two = {1: elastic.Activation(function), 2: elastic.PReLU(width), 0: None}
    steps = [
        elastic.Conv2d(2, width, (kernel, smaller), bias=True),
        elastic.BatchNorm2d(width, activation=function), elastic.Stage(layers, depth),
        elastic.SqueezeExcite(width, enabled=kernel.map(lambda k, r: k >= 2 * r - 3, ratio)),
        elastic.Choice(ratio.map(lambda r, k: k > r, kernel), choice), torch.tanh,
        elastic.Choice(ratio.map(lambda r, k: (k + r) % 3, kernel), two),
        elastic.Resized(InTurn(elastic.Conv2d(width, 3, bias=True), pool), ratio.map(max, kernel)),
    ]  # fmt: skip
    return steps, 3


def _norm_of_pairs(net):
    ratio = net.dimension("ratio", (1, 2, 3), "expand")
    hidden = net.width.map(lambda c, r: c * r, ratio)
    steps = [
        elastic.Embedding(5, hidden), elastic.LayerNorm(hidden), torch.sin,
        elastic.RMSNorm(hidden), elastic.Linear(hidden, hidden), torch.sin,
    ]  # fmt: skip
    return [*steps, lambda x: x.movedim(-1, 1)], hidden


def _resolutions(net):
    """A network on images of a searched size, with a choice inside."""
    size, width = net.dimension("size", (4, 6, 9), "resolution"), net.width
    body = InTurn(
        elastic.Conv2d(2, width, net.kernel, bias=True), elastic.BatchNorm2d(width),
        elastic.Choice(net.kernel.map(lambda k: k > 1), {True: elastic.PReLU(width), False: None}),
        Plain(lambda x: F.max_pool2d(x, 2).mean((2, 3), keepdim=True)),
        elastic.Conv2d(width, 5, bias=True),
    )  # fmt: skip
    return [elastic.Resized(body, size)], 5


def _fixed_groups(net):
    steps = [
        elastic.Conv2d(2, 4, net.kernel, groups=2, bias=True), torch.tanh,
        elastic.Conv2d(4, 4, net.kernel, groups=4), torch.tanh, elastic.Conv2d(4, net.width),
    ]  # fmt: skip
    return steps, net.width


def _joined(net):
    """Every layer on maps side by side: a fixed one, two of one dimension, one of another."""
    other = net.dimension("other", (1, 3))
    width, wide = net.width, net.width.map(lambda c: 2 * c)
    both = Joined((2, wide, other, width))
    steps = [
        Beside(None, elastic.Conv2d(2, wide, 3, bias=True), elastic.Conv2d(2, other),
               elastic.Conv2d(2, width, bias=True)),
        elastic.BatchNorm2d(both, activation="swish"),
        elastic.DepthwiseConv2d(both, net.kernel, bias=True), elastic.SqueezeExcite(both),
        elastic.Conv2d(both, both, net.kernel, bias=True), torch.tanh,
        elastic.Conv2d(both, width, stride=2), torch.tanh,
    ]  # fmt: skip
    return steps, width


def _dense(net):
    """Each layer sees all maps before it, and the head every pixel of them."""
    width, parts, steps = net.width, (2,), []
    for _ in range(2):
        steps += [Beside(None, elastic.Conv2d(Joined(parts), width, 3, bias=True)), torch.tanh]
        parts = (*parts, width)
    pixels = Joined(parts).map(lambda c: 16 * c)
    steps += [lambda x: F.max_pool2d(x, 2).flatten(1), elastic.Linear(pixels, width), torch.tanh]
    return [*steps, lambda x: x.unflatten(1, (-1, 1))], width


def _split(net):
    other = net.dimension("other", (1, 3))
    width, parts = net.width, Joined((net.width, net.width, other))
    steps = [
        elastic.Conv2d(2, parts, net.kernel, bias=True), torch.tanh,
        Parts(elastic.Split(parts), elastic.Conv2d(other, width)),
    ]  # fmt: skip
    return steps, width


def _chunks(net):
    width = net.width
    steps = [
        elastic.Conv2d(2, Joined((width, width)), 3, bias=True),
        lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(),
        elastic.Conv2d(width, Joined((width,) * 3)),
        lambda x: x.split(x.shape[1] // 3, 1)[0] * x.split([x.shape[1] // 3] * 3, 1)[2],
    ]
    return steps, width


def _joined_groups(net):
    wide = Joined((net.width.map(lambda c: 2 * c), net.width))
    both = Joined((net.width, net.width.map(lambda c: c // 2)))
    steps = [
        Beside(*(elastic.Conv2d(2, w, 3, bias=True) for w in wide.parts)), torch.tanh,
        elastic.Conv2d(wide, both, net.kernel, group_width=2, bias=True), torch.tanh,
        elastic.Conv2d(both, net.width),
    ]  # fmt: skip
    return steps, net.width


def _normalized(conv, norm, shape, **options):
    """A normalization, squeeze-and-excite and a slope for every channel, then a choice."""

    def make(net):
        choice = net.dimension("choice", ("relu", "silu", "gelu", "tanh"), "activation")
        se = elastic.SqueezeExcite(net.width, True, 2, axes=len(shape) - 1, **options)
        steps = [
            conv(2, net.width, net.kernel), norm(net.width, activation=choice), se,
            elastic.PReLU(net.width), conv(net.width, net.width), norm(net.width),
        ]  # fmt: skip
        return steps, net.width

    return shape, make


def _weightless(net):
    """Normalizations of batches and of groups without weights."""
    width = net.dimension("even", (2, 4, 6))
    steps = [
        elastic.Conv2d(2, width, net.kernel, bias=True), elastic.GroupNorm(width, 2, affine=False),
        torch.tanh, elastic.Conv2d(width, net.width, bias=True),
        elastic.BatchNorm2d(net.width, activation="swish", affine=False),
    ]  # fmt: skip
    return steps, net.width


def _features(net):
    """A normalization of features without pixels."""
    kind = net.dimension("kind", ("silu", "relu"), "activation")
    steps = [
        lambda x: x.mean((2, 3)), elastic.Linear(2, net.width),
        elastic.BatchNorm1d(net.width, activation=kind), elastic.PReLU(net.width),
        lambda x: x.unflatten(1, (-1, 1)),
    ]  # fmt: skip
    return steps, net.width


def _choices(net):
    """Every activation, as a choice of each place for one."""
    names = tuple(FUNCTIONS)
    first, after = (net.dimension(n, names, "activation") for n in ("first", "after"))
    on, gate = net.dimension("on", (False, True), "se"), net.dimension("gate", names, "activation")
    steps = [
        elastic.Conv2d(2, net.width, bias=True), elastic.Activation(first),
        elastic.Conv2d(net.width, net.width), elastic.BatchNorm2d(net.width, activation=after),
        elastic.SqueezeExcite(net.width, on, squeezed=3, activation=gate, gate=gate),
    ]  # fmt: skip
    return steps, net.width


def _group_norms(net):
    both = Joined((net.width.map(lambda c: 2 * c), 2, net.width))
    steps = [
        elastic.Conv2d(2, net.width, 3), elastic.GroupNorm(net.width, 2), torch.tanh,
        elastic.Conv2d(net.width, both), elastic.GroupNorm(both, 2, eps=0.1), elastic.PReLU(both),
        elastic.Conv2d(both, net.width), elastic.GroupNorm(net.width, 1),
    ]  # fmt: skip
    return steps, net.width


def _tokens(net):
    """Whole numbers, of which one stands for padding, with positions and a class token."""
    steps = [
        elastic.Embedding(5, net.width, padding_idx=2),
        Added(elastic.Parameter((6, net.width), std=0.5)), torch.tanh,
        Before(elastic.Parameter((1, net.width), mean=0.3)),
        elastic.Linear(net.width, net.width), lambda x: x.transpose(1, 2).sin(),
    ]  # fmt: skip
    return steps, net.width


def _tied(net):
    """Numbers for each row of a table, of its features."""
    table = elastic.Embedding(5, net.width)
    steps = [table, torch.tanh, elastic.Linear(net.width, 5, tied=table), torch.sin]
    return [*steps, elastic.Linear(5, net.width), lambda x: x.transpose(1, 2).sin()], net.width


def recurrent(kind, **options):
    """Recurrent layers of steps, of searched widths and of one that is fixed."""

    def make(net):
        other = net.dimension("state", (1, 3, 4))
        layers = [
            elastic.Recurrent(kind, net.width, other, **options),
            elastic.Recurrent(kind, both(other, options), 3, **options), torch.sin,
            elastic.Recurrent(kind, 6 if "both_ways" in options else 3, net.width, **options),
        ]  # fmt: skip
        steps = [elastic.Embedding(5, net.width), torch.sin, *layers]
        return [*steps, lambda x: x.transpose(1, 2)], both(net.width, options)

    def both(width, options):
        return Joined((width, width)) if "both_ways" in options else width

    return torch.arange(6) % 5, make


def _scales(net):
    """Weights of each channel, and of each pixel, of a map."""
    steps = [
        elastic.Conv2d(2, net.width), Times(elastic.Parameter((net.width, 1, 1), mean=0.7)),
        Added(elastic.Parameter((1, 9, 8))), torch.tanh,
    ]  # fmt: skip
    return steps, net.width


def normed(*steps, norm=elastic.LayerNorm, **options):
    """A norm over the width of tokens, then what ``steps`` make, and tokens again."""

    def make(net):
        before = [
            elastic.Embedding(7, net.width),
            Added(elastic.Parameter((5, net.width), std=1.0)),
        ]
        after = [step(net) for step in steps]
        last = [elastic.Linear(net.width, net.width), lambda x: x.transpose(1, 2).sin()]
        return [*before, norm(net.width, **options), *after, *last], net.width

    return torch.arange(5) % 7, make


def _linear(net):
    return elastic.Linear(net.width, net.width)


def _choice(net):
    return elastic.Activation(net.dimension("function", ("relu", "swish"), "activation"))


def _depth(net):
    def layer():
        return Residual(elastic.LayerNorm(net.width), elastic.Linear(net.width, net.width))

    return elastic.Stage([layer() for _ in range(3)], net.dimension("depth", (1, 2, 3), "depth"))


def normed_pixels(*steps):
    """A norm over the channels of an image, which stand last for it alone."""

    def make(net):
        before = [
            elastic.Conv2d(2, net.width, bias=True), lambda x: x.permute(0, 2, 3, 1),
            elastic.LayerNorm(net.width), lambda x: x.permute(0, 3, 1, 2),
        ]  # fmt: skip
        return [*before, *(step(net) for step in steps)], net.width

    return IMAGE, make


def attention(kind=None, **options):
    """Attention of a searched number of heads, after a norm."""

    def make(net):
        heads = net.dimension("heads", (2, 4, 8), "heads")
        layer = elastic.MultiheadAttention(net.width, heads, 3, **options)
        before = [
            elastic.Embedding(7, net.width),
            Added(elastic.Parameter((5, net.width), std=1.0)),
        ]
        own = layer if kind is None else kind(layer, net)
        steps = [*before, Residual(elastic.LayerNorm(net.width), own), torch.sin]
        return [*steps, lambda x: x.movedim(-1, 1)], net.width

    return torch.arange(5) % 7, make


class Cross(nn.Module):
    """Attention to tokens of another width, where a mask lets it."""

    def __init__(self, layer, memory):
        super().__init__()
        self.layer, self.memory = layer, memory

    def forward(self, x, arch):
        memory = self.memory(x[:, 1:], arch).tanh()
        allowed = torch.ones(5, 4, dtype=torch.bool).tril(1)
        return self.layer(x, arch, memory, mask=allowed)


class Windows(nn.Module):
    """Attention within two windows of tokens."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, arch):
        y = self.layer(torch.stack([x[:, :4], x[:, 1:]], 1), arch)
        return torch.cat([y[:, 0], y[:, 1, 3:]], 1)


class Residual(nn.Module):
    """A map and what two layers make of it, one after the other."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, arch):
        return x + self.second(self.first(x, arch), arch)


class PostNorm(Residual):
    """The norm after the sum."""

    def forward(self, x, arch):
        return self.first(x + self.second(x, arch), arch)


class Added(nn.Module):
    """A map and a learned one."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x, arch):
        return x + self.held(x, arch)


class Times(Added):
    def forward(self, x, arch):
        return self.held(x, arch) * x


class Before(Added):
    def forward(self, x, arch):
        return torch.cat([self.held(x, arch), x], 1)


LAYERS = {
    "no padding": _conv2d(kernel_size=3, padding=0),
    "much padding": _conv2d(kernel_size=(3, 2), padding=(2, 3)),
    "even kernel": _conv2d(kernel_size=2, stride=2, padding=0),
    "one pixel, padded and strided": _conv2d(kernel_size=1, stride=(2, 3), padding=(1, 2)),
    "one pixel, strided one way": _conv2d(kernel_size=1, stride=(1, 2), bias=False),
    "dilation": _conv2d(kernel_size=3, dilation=(2, 1), stride=(1, 2)),
    "reflected": _conv2d(kernel_size=3, padding_mode="reflect", dilation=2),
    "one pixel, circular": _conv2d(kernel_size=1, padding=1, padding_mode="circular", stride=2),
    "searched, dilated and strided": _searched(dilation=2, stride=(2, 1), bias=True),
    "searched, less padding": _searched(padding=2, bias=True),
    "searched, more padding": _searched(padding=(3, 5), stride=2),
    "searched, replicated": _searched(padding_mode="replicate", bias=True),
    "two kernels": _kernels("tall", "kernel"),
    "one of two kernels": _kernels(1, "kernel"),
    "fixed asymmetric kernel": _kernels(3, 1),
    "groups": _groups(elastic.Conv2d, IMAGE, bias=True),
    "groups, dilated": _groups(elastic.Conv2d, IMAGE, dilation=2, padding_mode="circular"),
    "fixed groups": (IMAGE, _fixed_groups),
    "joined": (IMAGE, _joined),
    "joined in groups": (IMAGE, _joined_groups),
    "dense": (IMAGE, _dense),
    "split": (IMAGE, _split),
    "chunks": (IMAGE, _chunks),
    "normalized sequences": _normalized(
        elastic.Conv1d, elastic.BatchNorm1d, SEQUENCE, activation="gelu", gate="hardsigmoid"
    ),
    "normalized images": _normalized(elastic.Conv2d, elastic.BatchNorm2d, IMAGE, gate="tanh"),
    "normalized volumes": _normalized(
        elastic.Conv3d, elastic.BatchNorm3d, VOLUME, activation="softplus", squeezed=3
    ),
    "normalized features": (IMAGE, _features),
    "norms without weights": (IMAGE, _weightless),
    "activations": (IMAGE, _choices),
    "group norms": (IMAGE, _group_norms),
    "transposed": _transposed(elastic.ConvTranspose2d, elastic.Conv2d, (2, 5, 4), bias=True),
    "transposed, fixed groups": (IMAGE, _fixed_transposed),
    "transposed sequences": _transposed(
        elastic.ConvTranspose1d, elastic.Conv1d, SEQUENCE, dilation=2, padding=1 + 3
    ),
    "transposed volumes": _transposed(elastic.ConvTranspose3d, elastic.Conv3d, (2, 2, 3, 2)),
    "expansion or none": (IMAGE, _expansion),
    "expansion alone": (IMAGE, lambda net: (_expansion(net)[0][:3], net.width)),
    "choices within choices": (IMAGE, _shortcut),
    "shortcuts of some widths": (IMAGE, _shortcuts),
    "shortcuts that project other widths": (IMAGE, _projected),
    "widths of two dimensions": (IMAGE, _pairs),
    "options of two dimensions": (IMAGE, _options_of_pairs),
    "groups of a width of two dimensions": (IMAGE, _groups_of_pairs),
    "a norm over a width of two dimensions": (torch.arange(6) % 5, _norm_of_pairs),
    "resolutions": (IMAGE, _resolutions),
    "sequences": _along(elastic.Conv1d, SEQUENCE, padding=0, bias=True),
    "sequences in groups": _groups(elastic.Conv1d, SEQUENCE),
    "volumes": _along(elastic.Conv3d, VOLUME, dilation=(1, 2, 1)),
    "volumes in groups": _groups(elastic.Conv3d, VOLUME, bias=True),
    "embedding": (torch.arange(6) % 5, _tokens),
    "tied": (torch.arange(6) % 5, _tied),
    "LSTM both ways": recurrent("lstm", both_ways=True),
    "GRU": recurrent("gru"),
    "plain recurrent layers": recurrent("tanh", bias=False),
    "learned maps": (IMAGE, _scales),
    "layer norm": normed(),
    "layer norm without bias": normed(bias=False, eps=0.1),
    "layer norm without weights": normed(elementwise_affine=False),
    "RMS norm": normed(norm=elastic.RMSNorm),
    "RMS norm without weights": normed(norm=elastic.RMSNorm, elementwise_affine=False, eps=0.3),
    "a function after a norm": normed(lambda net: F.gelu),
    "a choice after a norm": normed(_choice),
    "a norm of a norm": normed(lambda net: elastic.RMSNorm(net.width)),
    "a class token before normed ones": normed(
        lambda net: Before(elastic.Parameter((1, net.width)))
    ),
    "a scale of normed ones": normed(
        lambda net: Times(elastic.Parameter((1, net.width), mean=1.0))
    ),
    "a normed map added to another": normed(
        lambda net: Residual(elastic.Activation("swish"), _linear(net)), norm=elastic.RMSNorm
    ),
    "norms before the sum, of a searched depth": normed(_depth),
    "norms after the sum": normed(
        *[lambda net: PostNorm(elastic.LayerNorm(net.width), _linear(net))] * 2
    ),
    "attention": attention(),
    "causal attention without biases": attention(causal=True, bias=False),
    "attention of grouped queries": attention(group=2),
    "attention to others": attention(
        lambda layer, net: Cross(layer, elastic.Linear(net.width, 4)), memory_features=4
    ),
    "attention within windows": attention(lambda layer, net: Windows(layer)),
    "a norm of pixels before a convolution": normed_pixels(
        lambda net: elastic.Conv2d(net.width, net.width, net.kernel, bias=True)
    ),
    "a norm of pixels before a depthwise one": normed_pixels(
        lambda net: elastic.DepthwiseConv2d(net.width, net.kernel, bias=True),
        lambda net: elastic.Conv2d(net.width, net.width),
    ),
}


TABLE = models.TransformerTable((3, 5, 8), (1, 2, 4), (4, 9), (1, 2), head_width=2)

MODELS = {
    "text, classified": lambda: models.TextTransformer(TABLE, 6, 5, classes=3),
    "the next token": lambda: models.TextTransformer(TABLE, 6, 5),
    "mean of patches": lambda: models.VisionTransformer(TABLE, 2, 6, 1, 3, pool="mean"),
}
"""Whole supernets that the laws of layers run over, too."""


def chain(name):
    """A fresh supernet of the table."""
    return MODELS[name]() if name in MODELS else Chain(*LAYERS[name])
