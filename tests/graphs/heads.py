"""How a map becomes classes."""

import torch
from tests.graphs.maps import axes, channels, width
from tests.graphs.modules import ADAPTIVE, CLASSES, CONV, Head
from torch import nn


def mlp(net):
    norm = net.draw.choice([nn.BatchNorm1d, nn.LayerNorm, lambda c: nn.Identity()])
    net.add("MLP", lambda head, x: head(x), [Head(net.shape[1], width(net), norm)])


def linear(net):
    net.add("linear", lambda head, x: head(x), [nn.Linear(net.shape[1], CLASSES)])


def flat(net):
    """Every pixel to the head; few of them."""
    module = ADAPTIVE[axes(net)](2) if net.shape[2:].numel() > 16 else nn.Identity()
    net.add("flat", net.draw.choice([
        lambda pool, x: pool(x).flatten(1), lambda pool, x: torch.flatten(pool(x), 1),
        lambda pool, x: pool(x).reshape(x.shape[0], -1),
        lambda pool, x: pool(x).contiguous().view(x.size(0), -1),
    ]), [module])  # fmt: skip


def pooled(net):
    d = axes(net)
    over = tuple(range(2, 2 + d))
    net.add("pooled", net.draw.choice([
        lambda pool, x: pool(x).flatten(1), lambda pool, x: x.mean(over),
        lambda pool, x: torch.cat([x.mean(over), x.amax(over)], 1),
        lambda pool, x: x.flatten(2).mean(-1), lambda pool, x: pool(x).reshape(-1, x.shape[1]),
        lambda pool, x: pool(x).contiguous().view(x.size(0), -1),
    ]), [ADAPTIVE[d](1)])  # fmt: skip


def map_head(net):
    """Classes by a last convolution."""
    over = tuple(range(2, 2 + axes(net)))
    module = CONV[axes(net)](channels(net), CLASSES, 1)
    net.add("map head", lambda head, x: head(x).mean(over), [module])


def flat_then_mlp(net):
    flat(net)
    net.draw.choice([mlp, linear])(net)


def pooled_then_mlp(net):
    pooled(net)
    net.draw.choice([mlp, linear])(net)


HEADS = [flat_then_mlp, pooled_then_mlp, pooled_then_mlp, map_head]
