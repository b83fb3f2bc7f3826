"""What code bases write themselves: norms, dropped branches, einsum, sizes in many ways.

A further module or way joins its table by adding a line.
"""

from functools import cache, partial

import numpy as np
import pytest
import torch
from tests import laws
from tests.spaces import seeded
from torch import nn
from torch.nn import functional as F

import boundnas as bn
from boundnas import elastic
from boundnas.convert.dropping import dropped
from boundnas.convert.normalizing import normalizing
from boundnas.errors import ConvertError


class Norm(nn.Module):
    """A weight, a bias or none, and a function of both."""

    def __init__(self, function, bias=False, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6))
        self.bias = nn.Parameter(torch.rand(6)) if bias else None
        self.eps, self.function = eps, function

    def forward(self, x):
        return self.function(self, x)


def rms(m, x):
    return m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps))


def pixels(m, x):
    mean = x.mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + m.eps)
    return m.weight[:, None, None] * x + m.bias[:, None, None]


def last(m, x):
    return F.layer_norm(x, (6,), m.weight, m.bias, m.eps)


NORMS = {
    "of squares": (lambda: Norm(rms), nn.RMSNorm, -1),
    "of squares, another eps": (lambda: Norm(rms, eps=1e-6), nn.RMSNorm, -1),
    "in single precision": (
        lambda: Norm(lambda m, x: rms(m, x.float()).to(x.dtype)), nn.RMSNorm, -1,
    ),
    "of pixels": (lambda: Norm(pixels, bias=True, eps=1e-6), nn.LayerNorm, 1),
    "of the last axis": (lambda: Norm(last, bias=True), nn.LayerNorm, -1),
    "without a bias": (lambda: Norm(last), nn.LayerNorm, -1),
    "1 beside its weight": (lambda: Norm(lambda m, x: rms(m, x) * (1 + m.weight)), None, 0),
    "eps beside the root": (
        lambda: Norm(lambda m, x: m.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + m.eps)),
        None, 0,
    ),
    "of a sample": (lambda: Norm(lambda m, x: (x - x.mean(1)) / x.std(1) * m.weight), None, 0),
    "unbiased": (
        lambda: Norm(
            lambda m, x: (
                m.weight * (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + m.eps).sqrt()
            )
        ),
        None, 0,
    ),
    "a scale": (lambda: Norm(lambda m, x: x * m.weight), None, 0),
    "other in training": (
        lambda: Norm(lambda m, x: rms(m, x) * (2 if m.training else 1)), None, 0,
    ),
    "a buffer": (lambda: with_buffer(Norm(rms)), None, 0),
}  # fmt: skip
"""Modules, the norm of PyTorch that each is, and the axis of its channels."""


def with_buffer(module):
    module.register_buffer("calls", torch.zeros(()))
    return module


@pytest.mark.parametrize(("build", "kind", "axis"), NORMS.values(), ids=NORMS)
def test_a_norm_by_hand_is_told_by_what_it_computes(build, kind, axis):
    module, state = seeded(build), torch.get_rng_state()
    values = {name: p.clone() for name, p in module.named_parameters()}
    found = normalizing(module)
    assert torch.equal(state, torch.get_rng_state())
    if kind is None:
        assert found is None
        return
    assert (type(found.norm), found.axis, found.norm.eps) == (kind, axis, module.eps)
    for name, parameter in module.named_parameters():
        assert getattr(found.norm, name) is parameter
        assert torch.equal(parameter, values[name])


class Drop(nn.Module):
    """Drops by a function, with a probability of 0.3 under some name."""

    def __init__(self, function, p=0.3):
        super().__init__()
        self.drop_prob, self.function = p, function

    def forward(self, x):
        return self.function(x, self.drop_prob, self.training)


def branches(x, p, training):
    if not training:
        return x
    kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - p)
    return x * kept / (1 - p)


def of_pixels(x, p, training):
    return branches(x, p, training) if x.dim() == 4 else x.missing


def unscaled(x, p, training):
    return branches(x, p, training) * (1 - p) if training else x


def all_together(x, p, training):
    return x * (torch.rand(()) > p) / (1 - p) if training else x


def in_evaluation(x, p, training):
    return branches(x, p, True)


DROPS = {
    "branches": (branches, 0.3, 0.3),
    "branches of pixels": (of_pixels, 0.2, 0.2),
    "entries": (F.dropout, 0.3, None),
    "channels": (lambda x, p, t: F.dropout2d(x, p, t) if x.dim() == 4 else x.missing, 0.3, None),
    "unscaled": (unscaled, 0.3, None),
    "all together": (all_together, 0.3, None),
    "in evaluation, too": (in_evaluation, 0.3, None),
    "never": (lambda x, p, t: x, 0.3, None),
    "with another probability": (lambda x, p, t: branches(x, 0.5, t), 0.3, None),
    "more often than it says": (
        lambda x, p, t: branches(x, 0.6, t) * (0.4 / 0.7) if t else x, 0.3, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "p", "found"), DROPS.values(), ids=DROPS)
def test_dropped_branches_are_told_by_what_is_dropped(function, p, found):
    state = torch.get_rng_state()
    module = Drop(function, p).eval()
    assert dropped(module) == found
    assert torch.equal(state, torch.get_rng_state())
    assert not module.training


class Tokens(nn.Module):
    """Tokens through what a function does with layers of eight features and two heads."""

    def __init__(self, function):
        super().__init__()
        self.embed, self.qkv = nn.Linear(3, 8), nn.Linear(8, 24)
        self.norm, self.drop = Norm8(), Drop(branches)
        self.project, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        self.table = nn.Embedding(9, 2)
        self.register_buffer("places", torch.arange(5)[:, None] - torch.arange(5) + 4)
        self.scales = nn.ParameterList([torch.rand(2), torch.rand(2)])
        self.between = nn.Parameter(torch.rand(2, 2))
        self.batch, self.of_half = nn.BatchNorm1d(8), nn.BatchNorm1d(4)
        self.twice = nn.Dropout(0.1)
        self.curves = nn.Sequential(Curve(), Curve())
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.of_heads = nn.ParameterList(torch.rand(8, 2, 4) for _ in range(4))
        self.shift, self.scale = (nn.Parameter(torch.rand(1, 1, 8)) for _ in range(2))
        self.kinds = {2: None, 3: self.project}
        self.assigning = nn.Sequential(*(Block(of_rows, 8) for _ in range(2)))
        self.halves = nn.Sequential(*(Block(gated, 4) for _ in range(3)))
        self.giving = nn.Sequential(Block(a_part, 8), Block(gated, 8))
        self.getting = nn.Sequential(Block(of_parts, 4), Block(gated, 4))
        self.joined, self.between_rows = nn.Linear(32, 8), nn.Parameter(torch.rand(8, 8))
        self.of_both = nn.Bilinear(8, 8, 8)
        self.summing = nn.Sequential(*(Block(summed, 8) for _ in range(2)))
        self.weighing = nn.Sequential(*(Block(weighed, 8) for _ in range(2)))
        self.function = function

    def forward(self, x):
        return self.head(self.function(self, self.embed(x)).mean(1))


class Block(nn.Module):
    """What a function does with a layer of twice the width and a weight."""

    def __init__(self, function, width):
        super().__init__()
        self.layer, self.scale = nn.Linear(width, 2 * width), nn.Parameter(torch.rand(width))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def a_part(m, x):
    return m.layer(x).chunk(2, -1)[1]


def of_parts(m, x):
    return x[0] * m.layer(x[1]).chunk(2, -1)[0]


def gated(m, x):
    y, gate = m.layer(x).chunk(2, -1)
    return x + y * gate.tanh()


def of_rows(m, x):
    y = gated(m, x)
    y[:, 1:3] = y[:, :2].sin()
    return x + y


def weighed(m, x):
    return gated(m, m.scale.sigmoid() * x) + x


def first_half(m, x):
    """Blocks in a row get a part of what was split, of which the others go elsewhere."""
    a, b = x.chunk(2, -1)
    return torch.cat([m.halves(a), b * a.mean(1, keepdim=True)], -1)


def second_half(m, x):
    a, b = x.chunk(2, -1)
    return torch.cat([a, m.halves(b)], -1)


def middle(m, x):
    a, b, c, *_ = m.qkv(x).split(4, -1)
    return torch.cat([a * c, m.halves(b)], -1)


def getting(m, x):
    parts = x.chunk(2, -1)
    return torch.cat([m.getting(parts), parts[0]], -1)


def norm_of_a_part(m, x):
    a, b = m.project(x).transpose(1, 2).chunk(2, 1)
    return x + torch.cat([m.of_half(a), b], 1).transpose(1, 2)


def dropout_of_a_part(m, x):
    a, b = m.project(x).chunk(2, -1)
    return x + torch.cat([a, F.dropout(b, 0.1, m.training)], -1)


def queries_twice_cut(m, x):
    b, n, _ = x.shape
    y = m.qkv(x).reshape(b, n, 3, 2, 4).reshape(b, n, 3, 2, 2, 2).flatten(4)
    q, k, v = y.permute(2, 0, 3, 1, 4)
    return x + m.project(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def beside(m, x):
    y = m.project(x)
    return m.weighing(x) + y


class Norm8(Norm):
    def __init__(self):
        super().__init__(rms)
        self.weight = nn.Parameter(torch.rand(8))


def heads(m, x):
    b, n, _ = x.shape
    return (y.reshape(b, n, 2, 4).transpose(1, 2) for y in m.qkv(x).chunk(3, -1))


def normed_queries(m, x):
    of_heads = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (m.norm(x), m.project(x)))
    q, k = of_heads
    y = (q @ k.mT).softmax(-1) @ q + F.scaled_dot_product_attention(q, k, k)
    return m.project(y.transpose(1, 2).flatten(2))


def einsum_with_weights(m, x):
    q, k, v = (torch.einsum("bnc,chd->bhnd", x, w) for w in m.of_heads[:3])
    y = F.scaled_dot_product_attention(q, k, v)
    return x + torch.einsum("bhnd,ohd->bno", y, m.of_heads[3])


def summed(m, x):
    return x + torch.einsum("bnc,bc->bnc", m.layer(x).chunk(2, -1)[0], x.mean(1))


def by_einsum(m, x):
    q, k, v = heads(m, x)
    weights = torch.einsum("bhid, bhjd -> bhij", q * 0.5, k)
    weights = nn.Softmax(dim=-1)(weights + m.table(m.places).permute(2, 0, 1))
    y = torch.einsum("...ij,...jd->...id", weights, v).transpose(1, 2)
    b, n, h, d = y.shape
    return x + m.project(y.reshape(b, n, h * d))


def norm_of_heads(m, x):
    q, k, v = heads(m, x)
    weights = torch.einsum("bhij,hg->bijg", q @ k.transpose(-2, -1), m.between)
    weights = F.layer_norm(weights, (2,), *m.scales).movedim(-1, 1)
    return x + m.project((weights @ v).transpose(1, 2).flatten(2))


def in_windows(m, x):
    """Attention of pairs of tokens, of which each sample has three, folded into the samples."""
    b, n, c = x.shape
    y = torch.cat([x, x[:, :1]], 1).reshape(b, 3, 2, c).flatten(0, 1)
    q, k, v = heads(m, y)
    y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)
    return x + m.project(y).reshape(b, 3, 2, -1).flatten(1, 2)[:, :n]


def dropped_between(m, x):
    q, k, v = (y[:, None] for y in heads(m, x))
    return x + m.project(
        (F.dropout((q @ k.mT), 0.1, m.training) @ v)[:, 0].transpose(1, 2).flatten(2)
    )


def normed_flat(m, x):
    y = m.project(x)
    return m.batch(y.flatten(0, 1)).reshape_as(y)


def norms_as_functions(m, x):
    y = m.project(x).transpose(1, 2)
    y = F.group_norm(y, 2, m.batch.weight, m.batch.bias).transpose(1, 2)
    return F.rms_norm(F.rms_norm(y, (8,), m.norm.weight), (8,))


def dropped_twice(m, x):
    y = m.twice(m.project(x))
    return y + m.twice(y.mean(1))[:, None]


def with_token(m, x):
    """As einops' ``repeat`` writes it, which asks for the shape of what it repeats."""
    token = m.token.reshape(m.token.shape[1], m.token.shape[2])[None]
    token = token.expand(x.shape[0], *token.shape[1:]).reshape(x.shape[0], 1, token.shape[2])
    return torch.cat([token, m.project(x)], 1)


class Curve(nn.Module):
    """An activation that adds something to what it gets."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(x + 0.04 * x**3))


def curved(m, x):
    return m.project(m.curves(x))


def shifted(m, x):
    return x + m.project(torch.addcmul(m.shift, m.scale, x))


def part_changed(m, x):
    y, once = m.project(x), x * 1
    part = y[:, 1:3]
    part.mul_(2.0)
    once[:, -1:].zero_()
    once[:, :1].fill_(0.5)
    return y + once.sin()


def windows_unsaid(m, x):
    """Windows whose number is left open, and a map of samples repeated for theirs."""
    n, once = x.shape[1], m.project(x.mean(1, keepdim=True))
    y = torch.cat([x, x[:, :1]], 1)
    y = y.view(-1, 3, 2, y.shape[-1]).reshape(-1, 2, y.shape[-1])
    y = y.sin() + once.repeat_interleave(y.shape[0] // x.shape[0], dim=0)
    return y.view(-1, 6, y.shape[-1])[:, :n]


def assigned(m, x):
    """To a part between others, a row, all of it, and of another shape, a number and a mean."""
    y = m.project(x)
    y[:, 1:3] = y[:, 2:4].sin()
    y[:, -1] = x[:, 0]
    once, twice = x * 1, torch.zeros_like(y)
    once[:, :2], once[..., 3:, :], once[:, 2] = 0.5, x.mean(1, keepdim=True), m.shift[0, 0]
    twice[:] = y
    return twice + once.tanh()


def assigned_between(m, x):
    """Along two axes at once, and to a part of a part."""
    q, k, v = heads(m, x)
    weights = q @ k.transpose(-2, -1)
    weights[:, :, 1:, 1:-1] = weights[:, :, 1:, 1:-1] + m.table(m.places[1:, 1:-1]).permute(2, 0, 1)
    part = weights[:, :, :2]
    part[..., -1] = 1
    return x + m.project((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))


def by_rank(m, x):
    y = m.kinds[x.ndim](x)
    return x + y if isinstance(y, torch.Tensor) and torch.is_tensor(x) else y


def masked_least(m, x):
    """A mask of the tokens, as the least number of a type, and where it is no mask, zeros."""
    q, k, v = heads(m, x)
    mask = (m.places[0] > 2).to(x.dtype)
    weights = q @ k.transpose(-2, -1) + (1.0 - mask) * torch.finfo(x.dtype).min
    y = (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)
    y[y < 0] = 0
    return x + m.project(y)


def sizes_between(m, x):
    """Numbers of channels that say where along other axes."""
    y, c = m.project(x), x.shape[-1]
    y = y.roll(c // 4, 1)[:, : c // 2] + y[:, : c - 4]
    return F.pad(y, (0, 0, 0, c // 8)) / divmod(c, 3)[0]


def turned(m, x):
    y = m.project(x).mT
    b, c, n = y.shape
    y = y.reshape(b, 2, c // 2, n).flatten(1, 2)
    return x + y.mT * y.mT.mean(1).T.T[:, None]


def of_weights(m, x):
    """Weights that meet one another before they meet a map."""
    scale = m.scale.to(x.dtype) * m.norm.weight.reshape(1, -1)
    return x * scale + m.project(x) + (m.shift - m.scale * scale)


def written_into(m, x):
    y = torch.empty_like(x)
    y.copy_(m.project(x)).mul_(np.float64(0.5))
    return y + m.places[0, :, None].to(x.dtype).requires_grad_(False)


def asked_as_in_scripts(m, x):
    y = m.project(x)
    return y.sin() if torch.jit.isinstance(x, torch.Tensor) else y.missing


def samples_after_samples(m, x):
    one, other = m.norm(torch.cat([x, x.sin()])).chunk(2)
    return m.project(one * other)


def extremes(m, x):
    y = m.project(x) * x.max(1, keepdim=True)[0] + x.min(dim=1).values[:, None]
    mean = torch.var_mean(y, 1, keepdim=True)[1]
    return y + torch.max(y, x) + mean + x.topk(2, dim=1)[0].median(1, keepdim=True).values


def remembered(m, x):
    """A recurrent layer by hand, with two states, one of which first goes into a layer."""
    h, c = x.new_zeros(x.size(0), 8), torch.zeros(len(x), 8, dtype=x.dtype)
    for t in range(3):
        gate, y = m.weighing[0].layer(m.project(h) + x[:, t]).chunk(2, 1)
        c = gate.sigmoid() * c + y
        h = c.tanh()
    return h[:, None]


def padded_channels(m, x):
    y = F.pad(x.chunk(2, -1)[0].mT, (0, 1, 2, 2)).mT
    return F.pad(m.project(x), (0, 0, 0, 1)) + y


def repeated(z):
    b, h, n, d = z.shape
    return z[:, :, None].expand(b, h, 2, n, d).reshape(b, 2 * h, n, d)


def attended(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def grouped(attend):
    """Two heads of queries for each of keys and values, all of one layer."""

    def function(m, x):
        q, k, v, y = m.qkv(x).split((8, 4, 4, 8), -1)
        q, k, v = (z.unflatten(-1, (-1, 2)).transpose(1, 2) for z in (q, k, v))
        return x + y + m.project(attend(q, k, v).transpose(1, 2).flatten(2))

    return function


def cut_after_norm(m, x):
    y = m.project(x)
    a, b = y.chunk(2, -1)
    return torch.cat([a * b, a], -1) + F.layer_norm(y, (8,)).sin()


def queried(m, x):
    """Learned queries, repeated for every sample, that look at one another and at tokens."""
    y = m.token.new_ones(1) * m.token.expand(len(x), 4, -1) + m.shift
    q, k, v = heads(m, y)
    y = y + m.project(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))
    return (y @ x.mT).softmax(-1) @ x


def latents(m, x):
    """Learned tokens, repeated for every sample, that look at tokens and keep what they see."""
    y = m.token.expand(len(x), 1, 8)
    (q, *_), (_, k, v) = heads(m, y), heads(m, x)
    return y + m.project(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def gated_as(m, x):
    scale = m.project(x.mean(1)).view(len(x), 1, 8).sigmoid()
    return x * scale.expand_as(x)


class Remembering(nn.Module):
    """Recurrent layers with dropout between them, and states from outside."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.lstm = nn.LSTM(8, 6, 2, batch_first=True, dropout=0.2, bidirectional=True)
        self.gru = nn.GRU(12, 4, 3, batch_first=True, dropout=0.2)
        self.up, self.head = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        x, _ = self.lstm(self.embed(x))
        _, state = self.gru(x, x.new_ones(3, x.size(0), 4))
        return self.head(torch.tanh(self.up(state[-1])))


GROUPED = ["embed.width", "qkv.heads"]
WAYS = {
    "einsum": (by_einsum, ["embed.width", "qkv.heads"]),
    "a norm over heads": (norm_of_heads, ["embed.width"]),
    "einsum of fewer axes": (
        lambda m, x: torch.einsum("bn,bnd->bd", x.mean(-1).softmax(1), m.project(x))[:, None],
        ["project.width"],
    ),
    "einsum of a weight": (
        lambda m, x: x + torch.einsum("bnc,nk->bkc", m.project(x), m.places.double()),
        ["embed.width"],
    ),
    "a norm over the sizes of a map": (
        lambda m, x: F.layer_norm(m.project(x), x.shape[-1:]) + F.layer_norm(x, (x.size(2),)),
        ["embed.width"],
    ),
    "tokens by a list": (
        lambda m, x: m.project(x[:, [-1], :]) + x[:, [3, 1]].mean(1, True), ["embed.width"],
    ),
    "channels by a list": (
        lambda m, x: m.project(x)[..., [1, 0, *range(2, 8)]] + m.qkv(x)[:, 1, :8][:, None],
        ["embed.width"],
    ),
    "entries by several lists": (
        lambda m, x: m.project(x.sin())[:, [0, 1], [2, 3]][..., None] + m.project(x)[:, :2],
        ["embed.width"],
    ),
    "a bilinear layer": (
        lambda m, x: m.of_both(m.project(x), x.tanh()), ["embed.width"],
    ),
    "flattened and cut again": (
        lambda m, x: m.project(x.mT.flatten(1).sin().view(len(x), -1, 5).mT),
        ["embed.width", "project.width"],
    ),
    "flattened and cut otherwise": (
        lambda m, x: m.project(x.mT.flatten(1).sin().view(len(x), 4, 10).reshape(len(x), 8, 5).mT),
        ["project.width"],
    ),
    "queries that are normalized": (normed_queries, ["embed.heads"]),
    "einsum with weights": (einsum_with_weights, ["embed.width", "linear.heads"]),
    "einsum with a weight in another order": (
        lambda m, x: m.project(torch.einsum("bnc, dc -> bdn", x, m.between_rows.exp()).mT),
        ["embed.width", "linear.width", "project.width"],
    ),
    "einsum that says no result": (
        lambda m, x: torch.einsum("bnc,dc", [x, m.between_rows]).mT + x, ["embed.width"],
    ),
    "blocks with an einsum of fewer axes": (
        lambda m, x: m.summing(x),
        ["embed.width", "summing.0.layer.width", "summing.depth", "summing.1.layer.width"],
    ),
    "einsum over channels": (
        lambda m, x: m.project(torch.einsum("bnc,bmc->bnm", x, x) @ x), ["project.width"],
    ),
    "einsum of two widths": (
        lambda m, x: torch.einsum("bnc,bnd->bnd", m.qkv(x), m.project(x)),
        ["embed.width", "project.width"],
    ),
    "einsum that keeps two widths": (
        lambda m, x: torch.einsum("bnc,bnd->bncd", m.qkv(x), m.project(x)).sum(2), ["embed.width"],
    ),
    "a norm and a branch": (lambda m, x: x + m.drop(m.project(m.norm(x))), ["embed.width"]),
    "windows": (in_windows, ["embed.width", "qkv.heads"]),
    "dropout on a third axis": (dropped_between, ["embed.width"]),
    "tokens flattened to be normed": (normed_flat, ["embed.width", "project.width"]),
    "norms as functions": (norms_as_functions, ["embed.width", "project.width"]),
    "dropout of tokens and of their mean": (dropped_twice, ["embed.width", "project.width"]),
    "blocks of a first half": (first_half, ["embed.width", "halves.depth"]),
    "blocks of a second half": (second_half, ["embed.width", "halves.depth", "embed.width.2"]),
    "blocks of a part in the middle": (
        middle,
        ["embed.width", "qkv.width", "halves.depth", *(f"qkv.width.{i}" for i in range(2, 6))],
    ),
    "a block that gives a part": (
        lambda m, x: m.giving(x),
        ["embed.width", "giving.0.layer.width", "giving.depth", "giving.0.layer.width.2"],
    ),
    "a block that gets parts": (
        getting, ["embed.width", "getting.0.layer.width", "embed.width.2"],
    ),
    "blocks with weights, and a map beside": (beside, ["embed.width", "weighing.depth"]),
    "a norm of a part": (norm_of_a_part, ["project.width", "project.width.2"]),
    "dropout of a part": (dropout_of_a_part, ["project.width", "project.width.2"]),
    "dropout of a weight": (
        lambda m, x: m.scale + m.project(x + F.dropout(m.token, 0.1, m.training)),
        ["project.width"],
    ),
    "queries that are cut twice": (queries_twice_cut, ["embed.width", "qkv.heads"]),
    "activations with a sum": (curved, ["embed.width", "project.width"]),
    "a token that is asked for its shape": (with_token, ["embed.width", "project.width"]),
    "weights before the map": (shifted, ["embed.width"]),
    "parts changed in place": (part_changed, ["embed.width"]),
    "windows whose number is left open": (windows_unsaid, ["embed.width"]),
    "repeated channels": (
        lambda m, x: m.project(x).repeat_interleave(2, -1)[..., :8] + m.project(x),
        ["embed.width"],
    ),
    "blocks that assign": (
        lambda m, x: m.assigning(x), ["embed.width", "assigning.depth"],
    ),
    "assigned to parts": (assigned, ["embed.width"]),
    "assigned to parts of attention": (assigned_between, ["embed.width", "qkv.heads"]),
    "asked for its rank and kind": (by_rank, ["embed.width"]),
    "a module made on the way": (
        lambda m, x: nn.GELU()(m.project(x)), ["embed.width", "project.width"],
    ),
    "the type of a weight": (
        lambda m, x: m.project(x.to(m.project.weight.dtype)), ["embed.width", "project.width"],
    ),
    "the device of a constant": (
        lambda m, x: x * torch.arange(x.shape[1]).to(torch.ones(1).device)[:, None].add(1),
        ["embed.width"],
    ),
    "sizes of a map": (
        lambda m, x: m.project(x) + x.new_zeros((x.shape[1], 8)).cos(), ["embed.width"],
    ),
    "sizes of samples": (
        lambda m, x: torch.cat([torch.zeros(x.size(0), 1, 8), m.project(x)], 1),
        ["embed.width", "project.width"],
    ),
    "a mask of the least numbers": (masked_least, ["embed.width", "qkv.heads"]),
    "flipped along several axes": (lambda m, x: m.project(x.sin()).flip(1, 2), ["embed.width"]),
    "numbers of channels along other axes": (sizes_between, ["embed.width", "project.width"]),
    "turned and asked for its shape": (turned, ["embed.heads"]),
    "weights that meet weights": (of_weights, ["embed.width"]),
    "a deviation that is told no axis": (
        lambda m, x: m.project(x) * m.scale.std(True), ["embed.width", "project.width"],
    ),
    "written into another": (written_into, ["embed.width", "project.width"]),
    "asked as in scripts": (asked_as_in_scripts, ["embed.width", "project.width"]),
    "grouped queries, repeated as in Llama": (
        grouped(lambda q, k, v: attended(q, repeated(k), repeated(v))), GROUPED,
    ),
    "grouped queries, repeated in a row": (
        grouped(lambda q, k, v: attended(q, *(z.repeat_interleave(2, 1) for z in (k, v)))), GROUPED,
    ),
    "grouped queries of PyTorch": (
        grouped(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)), GROUPED,
    ),
    "a gate repeated as the map": (gated_as, ["embed.width"]),
    "a norm of channels that are cut afterwards": (cut_after_norm, ["embed.width"]),
    "queries that are learned": (queried, ["qkv.heads"]),
    "tokens that are learned": (latents, ["embed.width", "qkv.heads"]),
    "one token in several places": (
        lambda m, x: torch.cat([m.token.expand(len(x), 4, -1), m.project(x)], 1), ["embed.width"],
    ),
    "extremes along an axis": (extremes, ["embed.width"]),
    "a state that starts at zeros": (remembered, ["embed.width", "weighing.0.layer.width"]),
    "zeros beside channels": (padded_channels, ["embed.width", "embed.width.2"]),
    "a weight that is turned": (
        lambda m, x: (x @ m.qkv.weight.T)[..., :8] + x @ m.project.weight.t(), ["embed.width"],
    ),
    "a weight as it lies": (
        lambda m, x: x + torch.mm(x.mean(1), m.project.weight)[:, None] @ m.between_rows,
        ["embed.width", "linear.width"],
    ),
    "tokens that stand several times": (
        lambda m, x: m.norm(m.project(x)).repeat(1, 2, 1)[:, 5:] + x, ["embed.width"],
    ),
    "channels that stand several times": (
        lambda m, x: m.joined(torch.cat((x.repeat(1, 2, 2)[:, 5:], m.project(x).tile(2)), -1)),
        ["embed.width", "project.width", "joined.width"],
    ),
    "channels of rows that stand several times": (
        lambda m, x: m.joined(m.project(x.mean(1)).repeat(5, 1, 4).transpose(0, 1)),
        ["embed.width", "project.width", "joined.width"],
    ),
    "a gate repeated to a shape": (
        lambda m, x: x * m.project(x.mean(1, keepdim=True)).sigmoid().expand(x.shape),
        ["embed.width"],
    ),
    "samples that stand several times": (
        lambda m, x: m.project(x.repeat(2, 1, 1)[: len(x)].sin()), ["project.width"],
    ),
    "an axis of one entry by a reshape": (
        lambda m, x: x * m.project(x).mean(1).reshape(len(x), 1, -1), ["embed.width"],
    ),
    "samples after samples": (samples_after_samples, ["project.width"]),
}  # fmt: skip
"""What is done, and the dimensions that may be searched then."""


@cache
def tokens(function):
    return partial(Tokens, function)


@cache
def made(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build().double().eval()
        example = torch.randn(1, 5, 3).double()
    return net, bn.elasticize(net, example, sort=False)


def keeps_all_laws(net, model, names, exact):
    assert [d.name for d in model.space.dimensions] == names
    laws.largest_is_original(net, model, exact=exact)
    laws.extracted_is_supernet(model)
    laws.gradient_is_masked(model)
    laws.gradient_of_a_part_is_the_whole_s(model)
    laws.trainable(model)


@pytest.mark.parametrize(("function", "names"), WAYS.values(), ids=WAYS)
def test_networks_that_are_written_so_are_right(function, names):
    keeps_all_laws(*made(tokens(function)), names, exact=False)


class Summed(nn.Module):
    """Products with weights of sizes of which ``einsum`` rounds otherwise than linear layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = (nn.Parameter(torch.rand(8, 8)) for _ in range(2))

    def forward(self, x):
        return torch.einsum("bnc,dc->bnd", torch.einsum("bnc,dc->bnd", x, self.first), self.last)


def test_an_einsum_with_a_weight_may_round_otherwise():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, example = Summed(), torch.randn(1, 1, 8)
    made = bn.elasticize(net, example, sort=False)
    assert [d.name for d in made.space.dimensions] == ["linear.width"]


class Steps(nn.Module):
    """A recurrent layer, what is read off it, and layers before and after."""

    def __init__(self, kind, read, **options):
        super().__init__()
        self.embed, self.read = nn.Linear(3, 8), read
        self.of = kind(8, 6, **options)
        self.head = nn.Linear(6 * (1 + self.of.bidirectional), 2)

    def forward(self, x):
        return self.head(self.read(self.of, torch.tanh(self.embed(x))).tanh())


def last_states(of, x):
    y, (state, _) = of(x)
    return y.mean(1) + torch.cat((state[-2], state[-1]), 1)


def from_zeros(of, x):
    start = torch.zeros(2, x.size(0), 6, dtype=x.dtype).to(x.device)
    return of(x.transpose(0, 1), start)[0][-1]


def there_and_back(of, x):
    return (of(x)[0] + of(x.flip(1))[1][0][:, None]).amax(1)


def from_itself(of, x):
    return of(x, of(x)[1])[0][:, -1]


def in_packs(of, x):
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5] * len(x)), batch_first=True)
    return of(packed)[1]


BOTH = ["embed.width", "of.layers.0.width"]
STEPS = {  # a network, and the dimensions that it has
    "both ways, and their last states": (
        lambda: Steps(nn.LSTM, last_states, num_layers=2, batch_first=True, dropout=0.2,
                      bidirectional=True), BOTH,
    ),
    "steps first, from zeros": (
        lambda: Steps(nn.GRU, from_zeros, num_layers=2), [*BOTH, "of.layers.1.width"],
    ),
    "called twice": (
        lambda: Steps(nn.RNN, there_and_back, nonlinearity="relu", batch_first=True, bias=False),
        BOTH,
    ),
    "after a norm": (
        lambda: Steps(nn.GRU, lambda of, x: of(F.layer_norm(x, (8,)))[1][0], batch_first=True),
        ["of.layers.0.width"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "names"), STEPS.values(), ids=STEPS)
def test_recurrent_layers_are_right(build, names):
    keeps_all_laws(*made(build), names, exact=True)


WHOLE = {
    "a state of its own": (
        lambda: Steps(nn.GRU, from_itself, batch_first=True),
        "starts from a state that is not made of zeros",
    ),
    "memory of its cells": (
        lambda: Steps(nn.LSTM, lambda of, x: of(x)[1][1][0], batch_first=True),
        "gives the memory of its cells, too",
    ),
    "a projection": (
        lambda: Steps(nn.LSTM, lambda of, x: of(x)[0][..., :1].expand(-1, -1, 6)[:, 0],
                      batch_first=True, proj_size=2),
        "has several layers or a projection, or takes its steps first",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "why"), WHOLE.values(), ids=WHOLE)
def test_recurrent_layers_that_give_or_take_more_stay_as_they_are(build, why):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(build(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)).double().eval()
        model = bn.elasticize(net, torch.randn(1, 5, 3).double(), sort=False)
    assert [d.name for d in model.space.dimensions] == ["0.head.width", "1.width"]
    assert why in {row.reason for row in model.report.rows if row.module == "0.of.layers.0"}
    laws.extracted_is_supernet(model)


def test_a_recurrent_layer_of_packs_in_a_module_that_stays_whole_takes_them():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(8, 8, 2, dropout=0.1, batch_first=True)

        def forward(self, x):
            return in_packs(self.gru, x)[-1] if x.mean().item() < 9 else x[:, 0]

    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(3, 8), Whole(), nn.Linear(8, 8), nn.Linear(8, 2))
        model = bn.elasticize(net, torch.randn(1, 5, 3))
    assert [d.name for d in model.space.dimensions] == ["2.width"]


def test_a_network_that_packs_sequences_is_refused_by_name():
    message = r"Steps\.forward cannot be followed: it hands packed sequences on, in .*; put what"
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError, match=message):
        bn.elasticize(Steps(nn.GRU, in_packs, batch_first=True), torch.zeros(1, 5, 3))


def test_dropout_between_recurrent_layers_is_drawn_by_the_library():
    net, model = made(Remembering)
    calls = [str(n.target) for n in model.net.graph.nodes if n.op == "call_module"]
    assert [n for n in calls if "lstm" in n or "gru" in n] == [
        "lstm.layers.0", "lstm.drop", "lstm.layers.1",
        "gru.layers.0", "gru.drop", "gru.layers.1", "gru.drop", "gru.layers.2",
    ]  # fmt: skip
    assert {type(model.net.get_submodule(n)) for n in calls if "drop" in n} == {elastic.Dropout}
    laws.largest_is_original(net, model, exact=True)
    laws.gradient_is_masked(model)
    laws.trainable(model)
