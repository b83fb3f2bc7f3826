"""Steps on maps of tokens, ``(N, L, C)``."""

import torch
from tests.graphs.families import starting
from tests.graphs.heads import linear, mlp
from tests.graphs.maps import width
from tests.graphs.modules import BATCH, Attention, Gated, Layer, Residual, Tokens, TorchAttention
from torch import nn
from torch.nn import functional as F


def attention_of(net, c):
    how = net.draw.choice(["one", "put together", "three", "chunk", "by hand", "torch"])
    heads = net.draw.choice([h for h in (1, 2, 4) if c % h == 0])
    net.said.append(f"attention {how} of {heads}")
    if how == "torch":
        return TorchAttention(c, heads)
    return Attention(c, heads, how, net.draw.random() < 0.3)


def feed_forward(net, c):
    hidden = width(net)
    if net.draw.random() < 0.3:
        return Gated(c, hidden)
    return nn.Sequential(
        nn.Linear(c, hidden),
        net.draw.choice([nn.GELU, nn.ReLU])(),
        nn.Dropout(0.1),
        nn.Linear(hidden, c),
    )


NORMS = [nn.LayerNorm, nn.LayerNorm, nn.RMSNorm]


def tokens(net):
    kind, with_class = net.draw.choice(["patches", "ids"]), net.draw.random() < 0.5
    c = net.draw.choice([8, 12, 16])
    if kind == "ids":
        x = torch.randint(11, (BATCH, 7))
        net.values.append(x)
        module = Tokens(kind, c, 7, with_class)
    else:
        x = starting(net, 3, 6, 6)
        module = Tokens(kind, c, 9, with_class)
    net.add(f"tokens of {kind}", lambda part, x: part(x), [module])
    for _ in range(net.draw.randint(1, 3)):
        net.draw.choice(TOKENS)(net)
    if net.draw.random() < 0.7:
        net.add("last norm", lambda norm, x: norm(x), [net.draw.choice(NORMS)(net.shape[-1])])
    net.add(
        "one token",
        net.draw.choice(
            [lambda x: x[:, 0], lambda x: x.mean(1), lambda x: x.mean(dim=-2), lambda x: x.amax(1)]
        ),
    )
    net.draw.choice([mlp, linear])(net)
    return x


def layers(net):
    """Transformer layers in a row."""
    c, norm, first = net.shape[-1], net.draw.choice(NORMS), net.draw.random() < 0.7
    parts = [
        Layer(attention_of(net, c), feed_forward(net, c), norm, c, first)
        for _ in range(net.draw.choice([1, 2, 2]))
    ]
    net.add(f"{len(parts)} layers", lambda part, x: part(x), [nn.Sequential(*parts)])


def mixer(net):
    """MLP of the tokens, then of the channels."""
    _, length, c = net.shape
    modules = [
        nn.LayerNorm(c),
        nn.Sequential(nn.Linear(length, 6), nn.GELU(), nn.Linear(6, length)),
        feed_forward(net, c),
    ]

    def function(norm, across, along, x):
        x = x + across(norm(x).transpose(1, 2)).transpose(1, 2)
        return x + along(x)

    net.add("mixer", function, modules)


def token_mlp(net):
    net.add("token MLP", lambda part, x: part(x), [Residual(feed_forward(net, net.shape[-1]))])


def projected(net):
    net.add(
        "projection",
        lambda part, x: part(x),
        [nn.Linear(net.shape[-1], net.draw.choice([8, 12, 16]))],
    )


def token_conv(net):
    c = net.shape[-1]
    module = nn.Conv1d(c, c, 3, padding=1, groups=net.draw.choice([1, c]))
    net.add(
        "conv along tokens", lambda conv, x: x + conv(x.transpose(1, 2)).transpose(1, 2), [module]
    )


def torch_layer(net):
    c = net.shape[-1]
    module = nn.TransformerEncoderLayer(
        c, 2, 12, batch_first=True, norm_first=net.draw.random() < 0.5
    )
    net.add("torch's layer", lambda part, x: part(x), [module])


def token_unruled(net):
    net.add("unruled", net.draw.choice([
        lambda x: x.softmax(-1), lambda x: x.flip(-1), lambda x: F.normalize(x, dim=-1),
        lambda x: x - x.mean(-1, keepdim=True), lambda x: torch.fft.fft(x).real,
        lambda x: x * x.norm(dim=-1, keepdim=True), lambda x: x.cumsum(2),
    ]))  # fmt: skip


TOKENS = [
    layers,
    layers,
    layers,
    mixer,
    token_mlp,
    projected,
    token_conv,
    torch_layer,
    token_unruled,
]
