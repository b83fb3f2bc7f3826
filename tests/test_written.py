"""Networks as users of other tools write them: all of each is right."""

import pytest
import torch
from tests.spaces import seeded
from tests.test_forwards import is_right
from torch import nn
from torch.nn import functional as F

from boundnas import Architecture, Supernet, elastic, guard
from boundnas.cost import MACs
from boundnas.errors import CostError, SpaceError
from boundnas.fit.start import check_forward
from boundnas.guard.learnable import check_learnable


class Written(Supernet):
    """A stem, what a user writes after it, and a head."""

    def __init__(self, body, parts):
        super().__init__((2, 8, 8))
        self.width = self.dimension("width", (2, 4, 6))
        self.stem = elastic.Conv2d(2, self.width, 3, bias=True)
        self.neck = elastic.Conv2d(self.width, 4, 3)
        self.p = nn.ModuleDict(parts(self.width))
        self.head = elastic.Linear(4, 3)
        self.register_buffer("blur", torch.full((4, 1, 3, 3), 1 / 9))
        self.positions = nn.Parameter(torch.randn(4, 8, 8))
        self.body = body

    def forward(self, x, arch):
        y = F.relu(self.stem(x, arch)) + 0 * self.positions.sum()
        return self.head(self.body(self, y, arch).flatten(2).mean(2), arch)


class Cosine(nn.Module):
    """A classifier of angles, with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return F.linear(F.normalize(x), F.normalize(self.weight))


class Attention(nn.Module):
    """Of the pixels of a fixed number of channels."""

    def __init__(self):
        super().__init__()
        self.of = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = x.flatten(2).mT
        return self.of(x, x, x)[0].mT


def attended_pixels(m, y, arch):
    weights = m.p["q"](y, arch).flatten(2).softmax(-1)
    pooled = torch.matmul(y.flatten(2), weights.mT)
    return m.neck(pooled[..., None], arch)


def by_itself(m, y, arch):
    x = m.neck(y, arch).flatten(2)
    return (x @ x.mT).softmax(-1) @ x


def asserted(m, y, arch):
    assert y.dim() == 4, "maps"
    assert y.shape[2] == y.shape[3] == 8
    return m.neck(y, arch)


def modules_made(m, y, arch):
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2))(m.neck(nn.SiLU()(y), arch))


def fixed(make):
    """A plain module on the neck's four channels."""
    return (lambda m, y, a: m.p["m"](m.neck(y, a)), lambda w: {"m": make()})


def searched(make):
    """An elastic layer on the searched channels."""
    return (lambda m, y, a: m.neck(m.p["m"](y, a), a), lambda w: {"m": make(w)})


def shared(w):
    layer = elastic.Conv2d(w, w, 3)
    return elastic.Stage([layer, layer], 2)


WRITTEN = {
    "positions added": (lambda m, y, a: m.neck(y, a) + m.positions, lambda w: {}),
    "a scale for each channel": (lambda m, y, a: m.neck(y, a) * m.positions, lambda w: {}),
    "a blur with a buffer": (
        lambda m, y, a: F.conv2d(m.neck(y, a), m.blur, stride=2, groups=4), lambda w: {},
    ),
    "attention by hand": (by_itself, lambda w: {}),
    "attention of PyTorch": fixed(Attention),
    "pixels attended to": (attended_pixels, lambda w: {"q": elastic.Conv2d(w, 1)}),
    "a transposed convolution": fixed(lambda: nn.ConvTranspose2d(4, 3, 2, 2)),
    "layer norm of all": fixed(lambda: nn.LayerNorm([4, 8, 8])),
    "weight norm": fixed(
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
    ),
    "a weight of one's own": (
        lambda m, y, a: m.p["m"](m.neck(y, a).mean((2, 3)))[..., None], lambda w: {"m": Cosine()},
    ),
    "a kernel that follows the width": searched(
        lambda w: elastic.DepthwiseConv2d(w, w.map(lambda c: c - 1 if c < 6 else 3))
    ),
    "one layer twice in a stage": searched(shared),
    "sizes asserted": (asserted, lambda w: {}),
    "modules made in forward": (modules_made, lambda w: {}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_users_write_is_right(name):
    body, parts = WRITTEN[name]
    model = seeded(lambda: Written(body, parts))
    if "transposed" in name:
        model.head = seeded(lambda: elastic.Linear(3, 3))
    guard.check(model)
    check_learnable(model)
    check_forward(model)
    is_right(model)


def fails_later(m, y, arch):
    if not torch.is_grad_enabled():
        raise KeyError
    return m.neck(y, arch)


def test_a_failure_of_a_pass_without_gradients_is_named():
    with pytest.raises(SpaceError, match=r"test_written.py, line \d+: Written.forward .*KeyError"):
        MACs(seeded(lambda: Written(fails_later, lambda w: {})))


def weights_multiplied(m, y, arch):
    return m.neck(y, arch) * (m.positions @ m.positions)[0, 0, 0]


def pixels_in_a_row(m, y):
    return m.p["m"](y.flatten(2).mT)[0].mT[:, :4].reshape(y.shape)


COUNTED = {  # what PyTorch's own counter passes over, and products of weights alone, once
    "attention": (
        lambda m, y, a: F.scaled_dot_product_attention(*[m.neck(y, a)] * 3), 2 * 4 * 8 * 8 * 8,
    ),
    "a matrix and a vector": (lambda m, y, a: m.neck(y, a) @ m.positions[0, 0], 4 * 8 * 8),
    "weights with weights": (weights_multiplied, 4 * 8 * 8 * 8),
    **{
        f"distances, mode {mode}": (
            lambda m, y, a, mode=mode: torch.cdist(m.neck(y, a), m.positions, compute_mode=mode),
            4 * 8 * 8 * 8,
        )
        for mode in ("use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
    },
    **{
        f"recurrent {name}": (lambda m, y, a: pixels_in_a_row(m, m.neck(y, a)), macs, parts)
        for name, macs, parts in [
            ("LSTM", 64 * 4 * 4 * (4 + 4), lambda w: {"m": nn.LSTM(4, 4, batch_first=True)}),
            ("both ways", 64 * 2 * 4 * 4 * (4 + 4 + 8 + 4), lambda w: {
                "m": nn.LSTM(4, 4, 2, batch_first=True, bidirectional=True),
            }),
            ("GRU", 64 * 3 * 4 * (4 + 4), lambda w: {"m": nn.GRU(4, 4, batch_first=True)}),
        ]
    },
    "a weight of a module": (
        lambda m, y, a: m.p["m"](m.neck(y, a)), 4 * 4 * 8 * 8 + 4 * 4 + 4,
        lambda w: {"m": nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_products_are_counted(name):
    body, products, *parts = COUNTED[name]
    made = parts[0] if parts else lambda w: {}
    with_them = seeded(lambda: Written(body, made))
    without = seeded(lambda: Written(lambda m, y, a: m.neck(y, a), lambda w: {}))
    for index in range(3):
        archs = (Architecture(m.space, (index,)) for m in (with_them, without))
        found, base = (MACs(m)(a) for m, a in zip((with_them, without), archs, strict=True))
        assert found == base + products


def images_too(m, y, arch):
    return m.neck(y, arch) @ (m.positions[0] @ m.positions[0])


def samples_multiplied(m, y, arch):
    y = m.neck(y, arch)
    return y * (y.flatten(1) @ y.flatten(1).T).mean(1)[:, None, None, None]


UNCOUNTED = {
    "bilinear": (
        lambda m, y, a: F.bilinear(*[m.neck(y, a)] * 2, m.positions[:, :, :1].expand(4, 8, 8)),
        lambda w: {}, "forward: the MACs of aten._trilinear are not known",
    ),
    "weights and images": (images_too, lambda w: {}, r"forward multiplies .* or weights where it"),
    "images with images": (samples_multiplied, lambda w: {}, "forward multiplies images with one"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCOUNTED)
def test_products_that_are_not_known_are_refused_by_name(name):
    body, parts, words = UNCOUNTED[name]
    with pytest.raises(CostError, match=words):
        MACs(seeded(lambda: Written(body, parts)))
