"""The reference of the exact policy gradient: the whole supernet, full width, with masks.

Every layer computes ``y = sum_j z_j y_j`` literally, by autograd, whatever was chosen.
Slow and simple; the library's pass must give the same values and the same gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.space import Architecture, Setting, choices
from boundnas.supernet.supernet import Supernet


@contextmanager
def masked(model: Supernet) -> Iterator[Supernet]:
    """Within it, ``model(x, relaxed_arch)`` is the full-width masked pass."""
    layers = [m for m in model.modules() if type(m) in _FORWARD]
    for layer in layers:
        layer.forward = partial(_FORWARD[type(layer)], layer)
    try:
        yield model
    finally:
        for layer in layers:
            del layer.forward


def _mask(setting: Setting, arch: Architecture) -> Tensor | float:
    gate = arch.gate(setting)
    if gate is None:
        return 1.0
    width = max(choices(setting))
    return sum(
        z * (torch.arange(width) < c).to(gate) for z, c in zip(gate, choices(setting), strict=True)
    )


def _kernel_mask(setting: Setting, arch: Architecture) -> Tensor | float:
    gate = arch.gate(setting)
    if gate is None:
        return 1.0
    sizes = [int(c) for c in choices(setting)]
    crop = [F.pad(torch.ones(c, c).to(gate), [(max(sizes) - c) // 2] * 4) for c in sizes]
    return sum(z * mask for z, mask in zip(gate, crop, strict=True))


def _channels(mask: Tensor | float) -> Tensor | float:
    return mask if isinstance(mask, float) else mask[:, None, None]


def _conv2d(layer: elastic.Conv2d, x: Tensor, arch: Architecture) -> Tensor:
    x = x * _channels(_mask(layer.in_channels, arch))
    weight = layer.weight * _kernel_mask(layer.kernel_size, arch)
    return F.conv2d(x, weight, layer.bias, layer.stride, weight.shape[-1] // 2)


def _depthwise(layer: elastic.DepthwiseConv2d, x: Tensor, arch: Architecture) -> Tensor:
    weight = layer.weight * _kernel_mask(layer.kernel_size, arch)
    return F.conv2d(x, weight, layer.bias, layer.stride, weight.shape[-1] // 2, groups=len(weight))


def _linear(layer: elastic.Linear, x: Tensor, arch: Architecture) -> Tensor:
    return F.linear(x * _mask(layer.in_features, arch), layer.weight, layer.bias)


def _batch_norm(layer: elastic.BatchNorm2d, x: Tensor, arch: Architecture) -> Tensor:
    y = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
    c = arch.size(layer.channels)
    statistics = arch.statistics(layer.name, x[:, :c])
    if statistics is not None:  # of the active channels; the others have their batch's own
        weight, bias = layer.weight[:c], layer.bias[:c]
        fixed = F.batch_norm(x[:, :c], *statistics, weight, bias, eps=layer.eps)
        y = torch.cat((fixed, y[:, c:]), 1)
    return y if layer.activation is None else _activated(layer.activation, y, arch)


def _combine(setting: Setting, arch: Architecture, options: list[Tensor]) -> Tensor:
    gate = arch.gate(setting)
    if gate is None:
        return options[choices(setting).index(arch.value(setting))]
    return sum(z * y for z, y in zip(gate, options, strict=True))


def _activation(layer: elastic.Activation, x: Tensor, arch: Architecture) -> Tensor:
    return _activated(layer.function, x, arch)


def _activated(function: Setting, x: Tensor, arch: Architecture) -> Tensor:
    functions = {"relu": F.relu, "swish": F.silu}
    return _combine(function, arch, [functions[c](x) for c in choices(function)])


def _squeeze_excite(layer: elastic.SqueezeExcite, x: Tensor, arch: Architecture) -> Tensor:
    scaled = x * layer._scale(x.mean((2, 3)), arch)[:, :, None, None]
    options = [scaled if c else x for c in choices(layer.enabled)]
    return _combine(layer.enabled, arch, options)


def _stage(layer: elastic.Stage, x: Tensor, arch: Architecture) -> Tensor:
    outputs = []
    for i, child in enumerate(layer._modules.values()):  # one may be there twice
        if i == arch.size(layer.depth):  # no part of the network: as ghosts, by the batch alone
            arch = arch.carrying(statistics=None, noise=None)
        x = child(x, arch)
        outputs.append(x)
    return _combine(layer.depth, arch, [outputs[int(c) - 1] for c in choices(layer.depth)])


_FORWARD: dict[type[nn.Module], object] = {
    elastic.Conv2d: _conv2d,
    elastic.DepthwiseConv2d: _depthwise,
    elastic.Linear: _linear,
    elastic.BatchNorm2d: _batch_norm,
    elastic.Activation: _activation,
    elastic.SqueezeExcite: _squeeze_excite,
    elastic.Stage: _stage,
}
