"""Networks of maps and of rows, from input to classes."""

import torch
from tests.graphs.heads import HEADS, linear, mlp
from tests.graphs.maps import MAPS, RARE, axes, conv, width
from tests.graphs.modules import ADAPTIVE, BATCH, Residual
from torch import nn
from torch.nn import functional as F


def starting(net, *shape):
    """The input; the first map."""
    x = torch.randn(BATCH, *shape)
    net.values.append(x)
    return x


def map_network(net, x):
    conv(net, kernels=(3,))
    for _ in range(net.draw.randint(2, 6)):
        kinds = RARE if net.draw.random() < 0.05 else MAPS
        net.draw.choice(kinds)(net)
    if net.shape[1] * max(1, net.shape[2:].numel()) > 4000:
        net.add("pool", lambda pool, x: pool(x), [ADAPTIVE[axes(net)](2)])
    net.draw.choice(HEADS)(net)
    return x


def images(net):
    return map_network(net, starting(net, 3, *net.draw.choice([(8, 8), (8, 8), (9, 7)])))


def sequences(net):
    return map_network(net, starting(net, 3, 12))


def volumes(net):
    return map_network(net, starting(net, 2, 4, 4, 4))


def rows(net):
    """A table's rows through linear layers."""
    x = starting(net, 5)
    for _ in range(net.draw.randint(1, 3)):
        kind = net.draw.choice(["layer", "residual", "gated", "joined"])
        c, out = net.shape[1], width(net)
        norm = net.draw.choice(
            [
                nn.BatchNorm1d,
                nn.LayerNorm,
                nn.Identity,
                lambda c: nn.GroupNorm(2, 2 * (c // 2)) if c % 2 == 0 else nn.Identity(),
            ]
        )
        if kind == "layer":
            net.add(
                "linear layer",
                lambda layer, x: layer(x).relu(),
                [nn.Sequential(nn.Linear(c, out), norm(out))],
            )
        elif kind == "residual":
            branch = nn.Sequential(nn.Linear(c, out), nn.GELU(), nn.Linear(out, c))
            net.add("residual MLP", lambda part, x: part(x), [Residual(branch)])
        elif kind == "gated":
            net.add(
                "gated MLP",
                lambda a, b, x: F.silu(a(x)) * b(x),
                [nn.Linear(c, out), nn.Linear(c, out)],
            )
        else:
            net.add(
                "joined layers", lambda a, x: torch.cat([x, a(x).tanh()], -1), [nn.Linear(c, out)]
            )
    net.draw.choice([mlp, linear])(net)
    return x
