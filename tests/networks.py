"""The table of plain networks that are made elastic; a new one joins by adding a line."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import boundnas as bn
from boundnas.errors import ConvertError


class Basic(nn.Module):
    """A residual block as of ResNet-18, in place where it can be."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.shortcut is None else self.shortcut(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += identity
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 8))
        self.layer2 = nn.Sequential(Basic(8, 16, 2), Basic(16, 16), Basic(16, 16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        x = self.pool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Inverted(nn.Module):
    """An inverted residual with a depthwise convolution and squeeze-and-excite of plain layers."""

    def __init__(self, inputs, hidden, outputs, stride):
        super().__init__()
        self.expand = nn.Conv2d(inputs, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 5, stride, 2, groups=hidden, bias=False)
        self.down, self.up = nn.Conv2d(hidden, 4, 1), nn.Conv2d(4, hidden, 1)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.last = nn.BatchNorm2d(outputs)
        self.keeps = stride == 1 and inputs == outputs

    def forward(self, x):
        y = F.hardswish(self.depthwise(F.relu6(self.norm(self.expand(x)))))
        scale = F.adaptive_avg_pool2d(y, 1)
        y = y * torch.sigmoid(self.up(F.relu(self.down(scale))))
        y = self.last(self.project(y))
        return x + y if self.keeps else y


def mobile():
    blocks = [Inverted(8, 16, 12, 2), Inverted(12, 24, 12, 1), Inverted(12, 20, 12, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 4),
    )  # fmt: skip


class VGG(nn.Module):
    """Layers in a row, flattened with their pixels, by sizes told in the ways users tell them."""

    def __init__(self, flat):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(12 * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 4)
        )
        self.flat = flat

    def forward(self, x):
        return self.classifier(self.flat(self.features(x)))


class Opaque(nn.Module):
    """Control flow that follows the values of a tensor, in a module of its own."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.mean().item() > -1e9 else x


class Mixed(nn.Module):
    """A module called twice, an untraceable one, and channels that are mixed by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 16, 1)
        self.opaque = Opaque(16)
        self.wide, self.narrow = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x)
        for _ in range(2):
            x = torch.tanh(self.norm(self.twice(x)))
        x = F.leaky_relu(self.middle(x), 0.1)
        x = self.opaque(x)
        x = self.narrow(F.silu(self.wide(x)))
        x = x / x.norm(dim=1, keepdim=True).clamp(min=1e-3)
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """Maps that grow side by side, as in DenseNet, and are cut apart again."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(2))
        self.mix, self.norm = nn.Conv2d(19, 16, 1), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        maps = [torch.relu(self.first(x))]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(norm(torch.cat(maps, 1)).relu_())
            maps.append(F.dropout(y, 0.1, self.training))
        y = self.depthwise(self.norm(self.mix(torch.cat([*maps, x], dim=1))))
        y, gate = y.chunk(2, dim=1)
        return self.fc(F.max_pool2d(y * gate.sigmoid(), 2).mean((2, 3)))


class Grouped(nn.Module):
    """Grouped convolutions of several kinds, uneven strides and paddings, channel dropouts."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, (3, 1), (2, 1), (2, 0), padding_mode="replicate")
        self.drop = nn.Dropout2d(0.2)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.multiplied = nn.Conv2d(16, 32, 3, padding="same", groups=16)
        self.large = nn.Conv2d(32, 12, 7, padding=2)
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.drop(F.gelu(self.first(x)))
        x = F.relu6(self.norm(self.grouped(x))) + x
        x = F.elu(self.large(self.multiplied(x)))
        return F.conv2d(x, self.last.weight, self.last.bias).amax((-1, -2))


class Mlp(nn.Module):
    """A residual block of tokens."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.1)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.shortcut, self.scale = nn.Identity(), nn.Parameter(torch.rand(width))
        self.shift = nn.Parameter(torch.rand(width))

    def forward(self, x):
        y = self.drop(self.fc2(F.gelu(self.fc1(self.norm(x * self.scale)))))
        return self.shortcut(x) + y + self.shift.reshape(1, 1, -1)


class Attention(nn.Module):
    """Queries, keys and values of one linear layer, as most people write them."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.width = heads, width // heads
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, self.width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.project(y.transpose(1, 2).reshape(b, n, c))


class Biased(nn.Module):
    """A learned bias of each head, by distance, and positions made from a size."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.width = heads, width // heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(17, heads))
        steps = torch.arange(9)
        self.register_buffer("places", (steps[:, None] - steps + 8).flatten())

    def forward(self, x):
        n = x.shape[1]
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, self.width)).transpose(1, 2) for y in (q, k, v))
        bias = self.table[self.places].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        weights = q @ k.transpose(-2, -1) + bias - 0.1 * torch.arange(n).to(x.device)
        return x + self.project((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Standardized(nn.Conv2d):
    """A convolution whose weight is standardized for each of its outputs, and scaled."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, self.out_channels))

    def forward(self, x):
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, self.gain * 0.7, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding,
                        self.dilation, self.groups)  # fmt: skip


class Computing(nn.Module):
    """Weights that are computed of parameters before a layer takes them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 3, 1, 1))
        self.stem, self.wide = Standardized(3, 8, 5, padding=2), Standardized(8, 16, 3, groups=4)
        self.qkv = nn.Linear(16, 48)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16))
        self.register_buffer("k_bias", torch.zeros(16))
        self.up, self.size = nn.Linear(16, 8), nn.Parameter(torch.rand(8) + 0.5)
        self.fc = parametrizations.weight_norm(nn.Linear(8, 4))

    def forward(self, x):
        x = F.conv2d(x, self.first / self.first.norm()).flip(1)
        x = torch.relu(self.wide(torch.relu(self.stem(x)))).flatten(2).mT
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        x = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*x).transpose(1, 2).flatten(2)
        bias = self.up.bias.clone()
        bias[2:4].zero_()
        with torch.autocast(x.device.type, enabled=False):
            rows = self.size[:, None] * F.normalize(self.up.weight, dim=1)
            x = F.linear(x, rows, bias)
        return self.fc(F.gelu(x).mean(1))


def weight_normed():
    """Weight norms as hooks, as they were, and as parametrizations, of layers both ways."""
    old, new = nn.utils.weight_norm, parametrizations.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            old(nn.Conv2d(3, 8, 3, padding=1)), nn.ReLU(),
            old(nn.ConvTranspose2d(8, 12, 2, 2), dim=1), nn.ReLU(),
            old(nn.Conv2d(12, 8, 3), dim=None), new(nn.ConvTranspose2d(8, 4, 3)),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), old(old(nn.Linear(4, 4)), "bias"),
        )  # fmt: skip


class ByPlace(nn.Module):
    """Weights of places alone: a table, one that layers make, a gate, biases with zeros beside."""

    def __init__(self, width, heads):
        super().__init__()
        self.table, self.gate = nn.Parameter(torch.randn(17)), nn.Parameter(torch.randn(1))
        self.value, self.bias = nn.Linear(width, width), nn.Parameter(torch.randn(4))
        steps = torch.arange(9)
        self.register_buffer("places", steps[:, None] - steps + 8)
        self.register_buffer("distances", torch.linspace(-1, 1, 17)[:, None])
        self.made = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 1))

    def forward(self, x):
        table = self.table + self.made(self.distances)[:, 0]
        weights = table[self.places.view(-1)].view(9, 9).softmax(-1)
        weights = weights * self.gate.sigmoid().reshape(1, 1)
        bias = torch.cat((self.bias, torch.zeros_like(self.bias), self.bias[:1]))
        return x + self.value((weights + bias) @ x)


class ByHand(nn.Module):
    """Layers of their own, products of matrices, and a scale that is read off the map."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.project, self.drop = nn.Linear(width, width), nn.Dropout(0.1)

    def forward(self, x):
        b, n, c = x.size()
        q, k, v = (
            layer(x).view(b, n, self.heads, c // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        weights = torch.matmul(q, k.transpose(-2, -1)) / (c // self.heads) ** 0.5
        weights = self.drop(torch.softmax(weights, dim=-1))
        return x + self.project((weights @ v).transpose(1, 2).contiguous().view(b, n, c))


class Transformer(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 2, 2)
        self.blocks = nn.Sequential(*(attention(16, 4) for _ in range(2)))
        self.mlp, self.head = Mlp(16, 12), nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.mlp(self.blocks(x)).mean(1))


class Torchs(nn.Module):
    """The transformer layers of torch, before and after their norms."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 12, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.encoder(self.embed(x))
        y = self.norm(x).transpose(0, 1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        x = x + self.attention(y, y, y, attn_mask=mask)[0].transpose(0, 1)
        return self.head(x.mean(1))


class Padded(nn.Module):
    """Torch's layers over texts of different lengths: what is padded with zeros is left out."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 12, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        y = self.encoder(self.embed(x), src_key_padding_mask=x == 0)
        return self.head(y[:, 0])


class Translated(nn.Module):
    """Torch's transformer, one sequence beside another, and attention with tokens of its own."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.both = nn.Transformer(16, 4, 1, 2, 12, 0.1, batch_first=True)
        layer = nn.TransformerDecoderLayer(16, 2, 8, 0.0, norm_first=True)
        self.more = nn.TransformerDecoder(layer, 1)
        options = {"dropout": 0.1, "kdim": 5, "vdim": 6, "batch_first": True}
        self.attention = nn.MultiheadAttention(
            16, 2, add_bias_kv=True, add_zero_attn=True, **options
        )
        self.key, self.value, self.head = nn.Linear(16, 5), nn.Linear(16, 6), nn.Linear(16, 4)

    def forward(self, x):
        x, mask = self.embed(x), nn.Transformer.generate_square_subsequent_mask(3)
        y = self.both(x, x[:, :3], tgt_mask=mask, tgt_is_causal=True)
        y = self.more(y.transpose(0, 1), x.transpose(0, 1), tgt_mask=mask).transpose(0, 1)
        ahead = torch.ones(3, 5, dtype=torch.bool).triu(1)
        y = y + self.attention(y, self.key(x), self.value(x), attn_mask=ahead)[0]
        return self.head(y.mean(1))


class Placed(nn.Module):
    """Learned positions that are looked up in tables, the same rows for every sample."""

    def __init__(self, ascending):
        super().__init__()
        self.embed, self.first, self.second = (nn.Embedding(n, 16) for n in (5, 7, 9))
        self.register_buffer("places", torch.arange(9)[None])
        self.norm, self.ascending = nn.LayerNorm(16), ascending
        self.mlp = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        places = torch.arange(x.shape[1], device=x.device)
        if self.ascending:
            y = self.embed(x) + self.second(self.places[:, 1 : x.shape[1] + 1])
        else:
            y, places = self.embed(x), places.flip(0)
        y = self.norm(y + self.first(places))
        return self.head((y + self.mlp(y)).mean(1))


class ByChannel(nn.Module):
    """Slopes, gates and norms of single channels, and a branch on the number of axes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16),
            nn.Conv2d(16, 24, 3, padding=1), nn.GLU(1), nn.InstanceNorm2d(12),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(12, 16), nn.PReLU(16), nn.Linear(16, 4))

    def forward(self, x):
        y = self.body(x)
        return self.head(y.mean((2, 3)) if len(y.shape) == 4 else y)


class Drawing(nn.Module):
    """What draws numbers in training, of PyTorch's, and norms without weights or of processes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False), nn.RReLU(0.1, 0.4),
            nn.Conv2d(8, 12, 3, padding=1), nn.SyncBatchNorm(12), nn.SELU(), nn.AlphaDropout(0.1),
            nn.Conv2d(12, 8, 1), nn.GroupNorm(4, 8, affine=False), nn.FeatureAlphaDropout(0.1),
        )  # fmt: skip
        self.tokens, self.norm = nn.Linear(8, 12), nn.SyncBatchNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.dropout3d(self.body(x).unsqueeze(2), 0.1, self.training).squeeze(2)
        x = F.rrelu(self.tokens(x.flatten(2).transpose(1, 2)), 0.1, 0.4, self.training)
        x = F.alpha_dropout(x, 0.2, self.training).mean(1)
        return self.head(self.norm(x))


class Upwards(nn.Module):
    """Down and up again, in one spatial axis."""

    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv1d(3, 8, 3, 2, 1), nn.BatchNorm1d(8)
        self.groups = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose1d(8, 12, 4, 2, 1)
        self.last = nn.Conv1d(12, 4, 3, padding=1)

    def forward(self, x):
        y = self.groups(F.relu(self.norm(self.down(x))))
        return self.last(F.silu(self.up(y))).mean(-1)


class OfPixels(nn.Module):
    """Attention among pixels, by convolutions."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 24, 1)
        self.out, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, 4, c // 4, h * w).unbind(1)
        weights = (q.transpose(-2, -1) @ k * (c // 4) ** -0.5).softmax(-1)
        y = self.out((v @ weights.transpose(-2, -1)).reshape(n, c, h, w))
        return self.fc((x + y).mean((2, 3)))


class Tokens(nn.Module):
    """Patches with a class token and learned positions, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 10, 8))
        self.blocks = nn.ModuleList(Mlp(8, 16) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class ConvNeXt(nn.Module):
    """Norms of pixels and a scale of each channel."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.randn(8))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale, self.other = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = F.layer_norm(y, (8,), self.weight, self.bias, 1e-6)
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        x = x + y * self.scale.view(1, -1, 1, 1)
        return self.head((self.other * x).mean([-2, -1]))


def shuffled():
    """Channels become pixels, and pixels channels."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.ReLU(), nn.PixelUnshuffle(2), nn.Conv2d(32, 16, 1), nn.ReLU(),
        nn.PixelShuffle(2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip


class OfNorms(nn.Module):
    """Attention whose queries are a map that was normalized."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.memory = nn.Linear(3, 16), nn.LayerNorm(16), nn.Linear(16, 32)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.norm(self.embed(x))
        of_heads = [
            y.unflatten(-1, (4, 4)).transpose(1, 2) for y in (x, *self.memory(x).chunk(2, -1))
        ]
        y = F.scaled_dot_product_attention(*of_heads).transpose(1, 2).flatten(2)
        return self.head(y.mean(1))


class Mixer(nn.Module):
    """A linear layer over tokens between those over channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.tokens = nn.Conv2d(3, 8, 2, 2), nn.Linear(9, 9)
        self.block, self.head = Mlp(8, 12), nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2)
        x = x + F.gelu(self.tokens(x))
        return self.head(self.block(x.transpose(1, 2)).mean(1))


class Steps(nn.Module):
    """Recurrent layers, both ways and one after the other, added to what they take."""

    def __init__(self):
        super().__init__()
        self.embed, self.project = nn.Linear(3, 8), nn.Linear(12, 8)
        self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)
        self.gru, self.head = nn.GRU(8, 8, 2), nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.project(self.lstm(x)[0])
        _, state = self.gru(x.transpose(0, 1))
        return self.head(state[-1] + x.mean(1))


def of_one_group():
    """Norms over all channels and pixels, with scales of channels and without, and over rows."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.ReLU(), nn.Conv2d(8, 12, 1),
        nn.GroupNorm(1, 12, affine=False), nn.Flatten(), nn.Linear(12 * 36, 8), nn.GroupNorm(1, 8),
        nn.Linear(8, 4),
    )  # fmt: skip


class Tied(nn.Module):
    """A language model whose last layer multiplies by the table that letters are looked up in."""

    def __init__(self):
        super().__init__()
        self.embed, self.block, self.norm = nn.Embedding(5, 8), Mlp(8, 12), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.norm(self.block(self.embed(ids)))).mean(1)


class Text(nn.Module):
    """Letters to a class."""

    def __init__(self):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(5, 8), nn.Sequential(Mlp(8, 12), Mlp(8, 12))
        self.norm, self.head = nn.RMSNorm(8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.embed(ids))).mean(1))


FLATS = {
    "flatten": lambda x: torch.flatten(x, 1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "view": lambda x: x.view(x.size(0), 48),
    "literal": lambda x: x.view(-1, 12 * 2 * 2),
}

NETWORKS = {
    "resnet": (ResNet, (3, 8, 8)),
    "mobile": (mobile, (3, 8, 8)),
    **{f"vgg {name}": (lambda f=flat: VGG(f), (3, 8, 8)) for name, flat in FLATS.items()},
    "dense": (Dense, (3, 6, 6)),
    "grouped": (Grouped, (3, 8, 8)),
    "tokens": (Tokens, (3, 6, 6)),
    "convnext": (ConvNeXt, (3, 6, 6)),
    "attention": (lambda: Transformer(Attention), (3, 6, 6)),
    "attention with a bias": (lambda: Transformer(Biased), (3, 6, 6)),
    "attention by place": (lambda: Transformer(ByPlace), (3, 6, 6)),
    "attention by hand": (lambda: Transformer(ByHand), (3, 6, 6)),
    "attention of norms": (OfNorms, (5, 3)),
    "attention of pixels": (OfPixels, (3, 4, 4)),
    "computed weights": (Computing, (3, 6, 6)),
    "weight norms": (weight_normed, (3, 6, 6)),
    "torch's attention": (Torchs, (5, 3)),
    "torch's attention, padded": (Padded, torch.tensor([3, 2, 4, 1, 2, 0])),
    "torch's attention, both ways": (Translated, (5, 3)),
    "drawing": (Drawing, (3, 4, 4)),
    "upwards": (Upwards, (3, 8)),
    "positions from tables": (lambda: Placed(True), torch.arange(5).repeat(2)[:7]),
    "positions in another order": (lambda: Placed(False), torch.arange(5).repeat(2)[:7]),
    "by channel": (ByChannel, (3, 6, 6)),
    "pixels of channels": (shuffled, (3, 4, 4)),
    "mixer": (Mixer, (3, 6, 6)),
    "recurrent": (Steps, (5, 3)),
    "norms of one group": (of_one_group, (3, 6, 6)),
    "tied": (Tied, torch.arange(5).repeat(2)[:7]),
    "text": (Text, torch.arange(5).repeat(2)[:7]),
    "mixed": (Mixed, (3, 6, 6)),
}


def network(name):
    """A network of the table, with statistics and weights as if trained, and a batch."""
    build, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight, 1, 0.2)
                    nn.init.normal_(module.bias, 0, 0.2)
        given = shape if isinstance(shape, torch.Tensor) else torch.randn(shape)
        return model.eval(), given[None]


def refusal(build, size):
    """What is said when a network of images of this size is not made elastic."""
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError) as error:
        bn.elasticize(build(), torch.zeros(1, 3, size, size))
    return str(error.value)
