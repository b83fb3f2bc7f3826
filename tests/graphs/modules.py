"""Modules that drawn networks are made of, as people write them."""

import math

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 3


BATCH = 4


CONV = (None, nn.Conv1d, nn.Conv2d, nn.Conv3d)


NORM = (None, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


MAX_POOL = (None, F.max_pool1d, F.max_pool2d, F.max_pool3d)


AVG_POOL = (None, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


ADAPTIVE = (None, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


TRANSPOSED = (None, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


DROPOUT = (None, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class SqueezeExcite(nn.Module):
    """With a gate and layers of one's own choice."""

    def __init__(self, d, width, hidden, gate, linear):
        super().__init__()
        self.linear, self.gate = linear, gate
        kind = nn.Linear if linear else lambda a, b: CONV[d](a, b, 1)
        self.pool, self.down, self.up = ADAPTIVE[d](1), kind(width, hidden), kind(hidden, width)

    def forward(self, x):
        y = self.pool(x)
        if self.linear:
            y = y.flatten(1)
        y = self.gate(self.up(F.relu(self.down(y))))
        return x * (y.view(y.shape[0], y.shape[1], *[1] * (x.dim() - 2)) if self.linear else y)


class Residual(nn.Module):
    """A block whose branch keeps the shape."""

    def __init__(self, branch, after=None, scale=None):
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()
        self.scale = None if scale is None else nn.Parameter(torch.randn(scale))

    def forward(self, x):
        y = self.branch(x)
        return self.after(x + (y if self.scale is None else self.scale * y))


def basic(d, c, hidden):
    layers = [CONV[d](c, hidden, 3, padding=1, bias=False), NORM[d](hidden), nn.ReLU(inplace=True)]
    return Residual(nn.Sequential(*layers, CONV[d](hidden, c, 1), NORM[d](c)), nn.ReLU())


def inverted(d, c, hidden):
    layers = [CONV[d](c, hidden, 1), NORM[d](hidden), nn.SiLU()]
    layers += [CONV[d](hidden, hidden, 3, padding=1, groups=hidden), NORM[d](hidden), nn.ReLU6()]
    layers += [SqueezeExcite(d, hidden, 4, nn.Sigmoid(), False), CONV[d](hidden, c, 1), NORM[d](c)]
    return Residual(nn.Sequential(*layers))


def before_norm(d, c, hidden):
    layers = [NORM[d](c), nn.GELU(), CONV[d](c, hidden, 3, padding=1)]
    return Residual(nn.Sequential(*layers, nn.ELU(), CONV[d](hidden, c, 3, padding=1)))


def wide_kernel(d, c, hidden):
    """ConvNeXt's, with a scale for each channel."""
    layers = [CONV[d](c, c, 5, padding=2, groups=c), nn.GroupNorm(1, c), CONV[d](c, hidden, 1)]
    layers += [nn.GELU(), CONV[d](hidden, c, 1)]
    return Residual(nn.Sequential(*layers), scale=(c, *[1] * d))


def group_block(d, c, hidden):
    hidden = 2 * math.ceil(hidden / 2)
    layers = [CONV[d](c, hidden, 1), NORM[d](hidden), nn.ReLU()]
    layers += [CONV[d](hidden, hidden, 3, padding=1, groups=2), CONV[d](hidden, c, 1)]
    return Residual(nn.Sequential(*layers))


BLOCKS = [basic, inverted, before_norm, wide_kernel, group_block]


class Computing(nn.Module):
    """A convolution whose weight is computed of parameters at every call."""

    def __init__(self, conv, how):
        super().__init__()
        self.conv, self.how = conv, how
        self.gain = nn.Parameter(torch.randn(len(conv.weight), *[1] * (conv.weight.dim() - 1)))

    def forward(self, x):
        conv, w = self.conv, self.conv.weight
        if self.how == "standardized":
            var, mean = torch.var_mean(w, tuple(range(1, w.dim())), correction=0, keepdim=True)
            w = (w - mean) * torch.rsqrt(var + 1e-3)
        elif self.how == "normalized":
            w = F.normalize(w.flatten(1), dim=1).view_as(w)
        function = getattr(F, f"conv{len(conv.kernel_size)}d")
        return function(x, w * self.gain, conv.bias, padding=conv.padding, groups=conv.groups)


class Scaled(nn.Module):
    """A scale and a shift of one's own for each channel."""

    def __init__(self, d, c):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, c, *[1] * d))
        self.register_buffer("shift", torch.randn(c, *[1] * d))

    def forward(self, x):
        return x * self.scale + self.shift


class Decides(nn.Module):
    """What cannot be traced."""

    def __init__(self, d, c):
        super().__init__()
        self.conv = CONV[d](c, c, 1)

    def forward(self, x):
        return self.conv(x) if bool((x.sum() > -1e9).item()) else x


class Attention2d(nn.Module):
    """Attention among places, with queries, keys and values of convolutions."""

    def __init__(self, c, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        weights = (q.transpose(-2, -1) @ k * (c // self.heads) ** -0.5).softmax(-1)
        return x + self.out((v @ weights.transpose(-2, -1)).reshape(n, c, h, w))


class Head(nn.Module):
    """An MLP."""

    def __init__(self, width, hidden, norm):
        super().__init__()
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, CLASSES)
        self.norm, self.drop = norm(hidden), nn.Dropout(0.1)

    def forward(self, x):
        return self.last(self.drop(F.relu(self.norm(self.first(x)))))


class Attention(nn.Module):
    """Self-attention as it is written by hand in many libraries."""

    def __init__(self, c, heads, how, causal):
        super().__init__()
        self.heads, self.how, self.causal = heads, how, causal
        self.qkv = nn.Linear(c, 3 * c) if how != "three" else None
        self.q, self.k, self.v = (nn.Linear(c, c) if how == "three" else None for _ in range(3))
        self.proj = nn.Linear(c, c)

    def forward(self, x):
        n, length, c = x.shape
        if self.how == "three":
            q, k, v = (
                f(x).view(n, length, self.heads, -1).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
        elif self.how == "put together":
            bias = torch.cat((self.qkv.bias[:c], torch.zeros(c), self.qkv.bias[-c:]))
            y = F.linear(x, self.qkv.weight, bias)
            q, k, v = y.reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.how == "chunk":
            parts = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (
                p.reshape(n, length, self.heads, c // self.heads).transpose(1, 2) for p in parts
            )
        else:
            q, k, v = (
                self.qkv(x)
                .reshape(n, length, 3, self.heads, c // self.heads)
                .permute(2, 0, 3, 1, 4)
            )
        if self.how == "by hand":
            y = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(n, length, c))


class TorchAttention(nn.Module):
    """PyTorch's own."""

    def __init__(self, c, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(c, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Gated(nn.Module):
    """A feed-forward layer with a gate, as in language models."""

    def __init__(self, c, hidden):
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(*s, bias=False) for s in ((c, hidden), (c, hidden), (hidden, c))
        )

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """A transformer's layer, its norms before or after."""

    def __init__(self, mixing, forward, norm, c, first):
        super().__init__()
        self.mixing, self.ff, self.first = mixing, forward, first
        self.norm1, self.norm2 = norm(c), norm(c)

    def forward(self, x):
        if self.first:
            x = x + self.mixing(self.norm1(x))
            return x + self.ff(self.norm2(x))
        x = self.norm1(x + self.mixing(x))
        return self.norm2(x + self.ff(x))


class Tokens(nn.Module):
    """Patches of images, or numbers, as tokens, with places and one for the class."""

    def __init__(self, kind, c, length, with_class):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(11, c) if kind == "ids" else nn.Conv2d(3, c, 2, stride=2)
        self.cls = nn.Parameter(torch.randn(1, 1, c)) if with_class else None
        self.places = nn.Parameter(torch.randn(1, length + with_class, c))

    def forward(self, x):
        x = self.embed(x)
        if self.kind != "ids":
            x = x.flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self.places
