"""Steps on maps of images, sequences and volumes; a further one joins a table by a line."""

import math

import torch
from tests.graphs.modules import (
    AVG_POOL,
    BLOCKS,
    CONV,
    DROPOUT,
    MAX_POOL,
    NORM,
    TRANSPOSED,
    Attention2d,
    Computing,
    Decides,
    Scaled,
    SqueezeExcite,
    basic,
)
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = [
    nn.ReLU, lambda: nn.ReLU(inplace=True), nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU,
    nn.Mish, nn.Tanh, nn.ReLU6, nn.PReLU, nn.Softplus, nn.Sigmoid, nn.CELU, nn.SELU,
]  # fmt: skip


FUNCTIONS = [
    F.relu, torch.tanh, F.silu, lambda x: x.relu(), lambda x: x.clamp(-1, 2), lambda x: -x,
    lambda x: 0.5 * x + 1, lambda x: x * x.sigmoid(), lambda x: torch.abs(x), lambda x: x / 2,
    lambda x: F.gelu(x, approximate="tanh"), lambda x: x.mul(2).add(1), lambda x: F.elu(x),
    lambda x: F.relu(x, inplace=False).contiguous(), lambda x: torch.maximum(x, -0.1 * x),
    lambda x: x.clone().mul_(0.7), lambda x: torch.where(x > 0, x, 0.1 * x),
]  # fmt: skip


def axes(net):
    return len(net.shape) - 2


def channels(net):
    return net.shape[1]


def width(net, of=1):
    """A number of channels, a multiple of something."""
    return of * math.ceil(net.draw.choice([4, 6, 8, 8, 12, 16]) / of)


def fitting(net, kernels):
    """A kernel that a map is large enough for."""
    return net.draw.choice([k for k in kernels if k <= min(net.shape[2:])] or [1])


def conv(net, out=None, kernels=(1, 3, 3, 5), groups=1, **options):
    d, kernel = axes(net), fitting(net, kernels)
    dilation = 2 if kernel == 3 and min(net.shape[2:]) >= 5 and net.draw.random() < 0.15 else 1
    held = {"padding": dilation * (kernel // 2), "dilation": dilation}
    held |= {"bias": net.draw.random() < 0.5, "groups": groups}
    module = CONV[d](channels(net), out or width(net), kernel, **held | options)
    net.add("conv" if groups == 1 else "grouped conv", lambda conv, x: conv(x), [module])


def strided(net):
    if min(net.shape[2:]) >= 4:
        conv(net, kernels=(2, 3), stride=2)


def valid(net):
    if min(net.shape[2:]) >= 5:
        conv(net, kernels=(3,), padding=0)


def same(net):
    conv(net, kernels=(3, 5), padding="same")


def asymmetric(net):
    if axes(net) == 2 and min(net.shape[2:]) >= 3:
        size, pads = net.draw.choice([((1, 3), (0, 1)), ((3, 1), (1, 0)), ((3, 5), (1, 2))])
        if all(a <= b for a, b in zip(size, net.shape[2:], strict=True)):
            module = nn.Conv2d(channels(net), width(net), size, padding=pads)
            net.add("asymmetric conv", lambda conv, x: conv(x), [module])


def circular(net):
    if axes(net) == 2 and min(net.shape[2:]) >= 3:
        conv(net, kernels=(3,), padding=1, padding_mode="circular", dilation=1)


def depthwise(net):
    conv(net, channels(net), (3, 5), groups=channels(net))


def multiplied(net):
    """Depthwise with several outputs for each input."""
    conv(net, 2 * channels(net), (3,), groups=channels(net))


def grouped(net):
    divisors = [g for g in (2, 3, 4) if channels(net) % g == 0]
    if divisors:
        g = net.draw.choice(divisors)
        conv(net, width(net, g), groups=g)


def upwards(net):
    if max(net.shape[2:]) <= 8:
        module = TRANSPOSED[axes(net)](channels(net), width(net), 2, stride=2)
        net.add("transposed conv", lambda conv, x: conv(x), [module])


def batch_norm(net):
    net.add("batch norm", lambda norm, x: norm(x), [NORM[axes(net)](channels(net))])


def group_norm(net):
    groups = net.draw.choice([g for g in (1, 2, 3, 4) if channels(net) % g == 0])
    net.add("group norm", lambda norm, x: norm(x), [nn.GroupNorm(groups, channels(net))])


def channels_last_norm(net):
    """Layer norm of the channels, as ConvNeXt does it."""
    module = nn.LayerNorm(channels(net))
    net.add("channels-last norm", lambda n, x: n(x.movedim(1, -1)).movedim(-1, 1), [module])


def activation(net):
    if net.draw.random() < 0.5:
        net.add("activation", lambda f, x: f(x), [net.draw.choice(ACTIVATIONS)()])
    else:
        net.add("function", net.draw.choice(FUNCTIONS))


def pool(net):
    if min(net.shape[2:]) < 4:
        return
    d = axes(net)
    function = net.draw.choice([
        lambda x: MAX_POOL[d](x, 3, 2, 1), lambda x: AVG_POOL[d](x, 2),
        lambda x: MAX_POOL[d](x, 3, 1, 1), lambda x: AVG_POOL[d](x, 3, 1, 1),
    ])  # fmt: skip
    net.add("pool", function)


def resized(net):
    size = [max(2, s // 2) for s in net.shape[2:]]
    net.add("resized", lambda x: F.interpolate(x, size=size))


def padded(net):
    if max(net.shape[2:]) <= 8:
        net.add("padded", lambda x: F.pad(x, (1, 1)))


def dropout(net):
    net.add(
        "dropout", lambda drop, x: drop(x), [net.draw.choice([DROPOUT[axes(net)], nn.Dropout])(0.2)]
    )


def alike(net):
    """Places of earlier maps of the last one's shape."""
    return [p for p, v in enumerate(net.values[:-1]) if p and v.shape == net.shape]


def added(net):
    """The last map and an earlier one, made fit by a convolution where needed."""
    function = net.draw.choice([
        lambda a, b: a + b, torch.add, lambda a, b: a.add(b), lambda a, b: torch.relu(a + 0.5 * b),
        lambda a, b: a - b, lambda a, b: a * torch.sigmoid(b), torch.maximum,
    ])  # fmt: skip
    if found := alike(net):
        net.add("sum", function, places=(-1, net.draw.choice(found)))
    else:
        of = net.draw.randrange(len(net.values))
        x = net.values[of]
        if x.shape[2:] == net.shape[2:]:
            module = CONV[axes(net)](x.shape[1], channels(net), 1)
            net.add("projected sum", lambda c, a, b: function(a, c(b)), [module], (-1, of))


def joined(net):
    """A concatenation of two or three maps; one may be there twice, or be the input."""
    there = [p for p, v in enumerate(net.values) if v.dim() == len(net.shape)]
    there = [p for p in there if net.values[p].shape[2:] == net.shape[2:]]
    places = [len(net.values) - 1, *net.draw.choices(there, k=net.draw.choice([1, 1, 2]))]
    if sum(net.values[p].shape[1] for p in places) <= 40:
        net.add("concat", lambda *maps: torch.cat(maps, 1), places=places)


def branches(net):
    """An inception block."""
    d, out = axes(net), [width(net) for _ in range(net.draw.choice([2, 3]))]
    modules = [
        CONV[d](channels(net), w, k, padding=k // 2) for w, k in zip(out, (1, 3, 1), strict=False)
    ]
    net.add("branches", lambda *p: torch.cat([c(p[-1]) for c in p[:-1]], dim=1), modules)


def dense(net):
    """A dense block: every layer sees all before it."""
    growth, d = width(net) // 2, axes(net)
    before = channels(net)
    for _ in range(2):
        module = nn.Sequential(NORM[d](before), nn.ReLU(), CONV[d](before, growth, 3, padding=1))
        net.add("dense layer", lambda layer, x: torch.cat([x, layer(x)], 1), [module])
        before += growth


def halved(net):
    """A gate: one half of the channels times the other."""
    if channels(net) % 2 == 0 and channels(net) >= 8:
        net.add("gated halves", net.draw.choice([
            lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), lambda x: F.glu(x, 1),
            lambda x: torch.mul(*x.split(x.shape[1] // 2, dim=1)),
        ]))  # fmt: skip


def apart(net):
    """Channels of one convolution that go two ways."""
    a, b, d = width(net), width(net), axes(net)
    module = CONV[d](channels(net), a + b, 1)
    after = CONV[d](b, a, 3, padding=1)
    net.add(
        "split", lambda c, e, x: (lambda p: p[0] + e(p[1]))(c(x).split([a, b], 1)), [module, after]
    )


def rejoined(net):
    """Halves of a convolution's channels, the second one changed, put together again."""
    if channels(net) % 2 == 0:
        half = channels(net) // 2
        module = CONV[axes(net)](half, half, 3, padding=1)

        def function(conv, x):
            a, b = x.chunk(2, dim=1)
            return torch.cat((a, conv(b)), 1)

        net.add("rejoined halves", function, [module])


def shuffled(net):
    if channels(net) % 2 == 0:

        def function(x):
            n, c, *rest = x.shape
            return x.view(n, 2, c // 2, *rest).transpose(1, 2).reshape(n, c, *rest)

        net.add("channel shuffle", function)


def squeeze_excite(net):
    gate = net.draw.choice([nn.Sigmoid(), nn.Hardsigmoid()])
    linear = net.draw.random() < 0.5
    module = SqueezeExcite(axes(net), channels(net), max(2, channels(net) // 4), gate, linear)
    net.add("squeeze-excite", lambda se, x: se(x), [module])


def stage(net):
    """Residual blocks in a row, which depth may be searched of."""
    block, number, c = net.draw.choice(BLOCKS), net.draw.choice([1, 2, 3]), channels(net)
    blocks = [block(axes(net), c, width(net)) for _ in range(number)]
    net.add(
        f"{number} blocks {block.__name__}", lambda stage, x: stage(x), [nn.Sequential(*blocks)]
    )


def part_staged(net):
    """A part of the channels goes through blocks in a row."""
    if channels(net) % 2 == 0 and channels(net) >= 4:
        block, half, first = net.draw.choice(BLOCKS), channels(net) // 2, net.draw.random() < 0.5
        blocks = [block(axes(net), half, width(net)) for _ in range(2)]

        def function(stage, x):
            a, b = x.chunk(2, 1)
            return torch.cat((stage(a), b) if first else (a, stage(b)), 1)

        net.add("blocks of a half", function, [nn.Sequential(*blocks)])


def again(net):
    """One module called twice in a row."""
    d, c = axes(net), channels(net)
    module = net.draw.choice([
        lambda: CONV[d](c, c, 3, padding=1), lambda: nn.Sequential(CONV[d](c, c, 1), nn.Tanh()),
        lambda: nn.Sequential(CONV[d](c, c, 1), NORM[d](c)), lambda: basic(d, c, 6),
    ])()  # fmt: skip
    net.add("called twice", lambda part, x: part(torch.tanh(part(x))), [module])


def shared(net):
    """One layer on two maps, its outputs added or joined."""
    c = channels(net)
    there = [
        p for p, v in enumerate(net.values) if v.dim() == axes(net) + 2 and v.shape == net.shape
    ]
    module = CONV[axes(net)](c, width(net), 1)
    function = net.draw.choice([
        lambda part, a, b: part(a) + part(b), lambda part, a, b: torch.cat([part(a), part(b)], 1),
    ])  # fmt: skip
    net.add("shared", function, [module], (-1, net.draw.choice(there)))


def two_names(net):
    """One layer under two names."""
    c = channels(net)
    name = net.part(CONV[axes(net)](c, c, 1))
    other = net.part(net.get_submodule(name))
    net.add("two names", lambda a, b, x: a(x).relu() + b(x), [name, other])


def tied(net):
    """Two layers of one weight."""
    c, d = channels(net), axes(net)
    one, two = CONV[d](c, c, 1), CONV[d](c, c, 1)
    two.weight = one.weight
    net.add("tied weights", lambda a, b, x: b(a(x).relu()), [one, two])


def scaled(net):
    net.add("scaled", lambda part, x: part(x), [Scaled(axes(net), channels(net))])


def computed(net):
    """A convolution, depthwise or not, of a computed weight."""
    c, kernel = channels(net), fitting(net, (1, 3))
    out, groups = net.draw.choice([(width(net), 1), (c, c)])
    conv = CONV[axes(net)](c, out, kernel, padding=kernel // 2, groups=groups)
    module = Computing(conv, net.draw.choice(["standardized", "normalized", "scaled"]))
    net.add("computed weight", lambda part, x: part(x), [module])


def decides(net):
    net.add("untraceable", lambda part, x: part(x), [Decides(axes(net), channels(net))])


def attention_of_places(net):
    if axes(net) == 2 and channels(net) % 2 == 0 and net.shape[2:].numel() <= 36:
        net.add("attention of places", lambda a, x: a(x), [Attention2d(channels(net), 2)])


UNRULED = [
    lambda x: x.flip(1), lambda x: x.softmax(1), lambda x: x.cumsum(1), lambda x: x.roll(1, 1),
    lambda x: x.sort(1)[0], lambda x: x - x.mean(1, keepdim=True), lambda x: F.normalize(x, dim=1),
    lambda x: x * x.sum(1, keepdim=True).tanh(), lambda x: x + x[:, :1], lambda x: x[:, ::2],
    lambda x: x[:, 1:], lambda x: x - x.mean(), lambda x: x.transpose(1, 2).contiguous(),
    lambda x: F.layer_norm(x, x.shape[1:]), lambda x: x.max(1, keepdim=True)[0] + x,
    lambda x: torch.einsum("nc...,nd...->nc...", x, x), lambda x: F.local_response_norm(x, 3),
    lambda x: x.repeat_interleave(2, 1), lambda x: torch.stack([x, -x], 2).flatten(1, 2),
    lambda x: x.repeat(1, 2, *[1] * (x.dim() - 2)), lambda x: x / x.shape[1],
    lambda x: x[:, [1, 0, 1]], lambda x: x.var(1, keepdim=True) + x,
    lambda x: x.reshape(x.shape[0], -1).reshape(x.shape[0], -1, *x.shape[2:][::-1]),
    lambda x: F.instance_norm(x),
    lambda x: x * torch.arange(1.0, x.shape[1] + 1).view(-1, *[1] * (x.dim() - 2)),
    lambda x: x.index_select(1, torch.tensor([1, 0])), lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
    lambda x: F.pad(x, (0, 0) * (x.dim() - 2) + (1, 1)), lambda x: x.unflatten(1, (2, -1)).sum(1),
    lambda x: x.topk(2, 1)[0], lambda x: x.amax(1, keepdim=True) * x,
    lambda x: x.permute(0, *range(2, x.dim()), 1).reshape(x.shape),
    lambda x: x.norm(dim=1, keepdim=True) + x,
]  # fmt: skip


def unruled(net):
    if channels(net) % 2 == 0 and channels(net) >= 4:
        net.add("unruled", net.draw.choice(UNRULED))


MAPS = [
    conv, conv, strided, valid, same, asymmetric, circular, depthwise, multiplied, grouped, upwards,
    batch_norm, batch_norm, group_norm, channels_last_norm, activation, activation, pool, resized,
    padded, dropout, added, added, joined, joined, branches, dense, halved, apart, rejoined,
    shuffled, squeeze_excite, stage, stage, part_staged, again, shared, two_names, tied, scaled,
    decides, computed, attention_of_places,
]  # fmt: skip


RARE = [unruled]
