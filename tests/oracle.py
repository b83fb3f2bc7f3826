"""The reference of the exact policy gradient: the whole supernet, full width, with masks.

Every layer computes ``y = sum_j z_j y_j`` literally, by autograd, whatever was chosen.
Slow and simple; the library's pass must give the same values and the same gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.elastic.choice import Wholes
from boundnas.elastic.ghost import replaced
from boundnas.space import (
    Architecture,
    Dimension,
    SearchSpace,
    Setting,
    Width,
    choices,
    followed,
    largest,
    parts_of,
)
from boundnas.supernet.supernet import Supernet


@contextmanager
def masked(model: Supernet) -> Iterator[Supernet]:
    """Within it, ``model(x, relaxed_arch)`` is the full-width masked pass."""
    layers = [m for m in model.modules() if type(m) in _FORWARD]
    device = next(model.parameters()).device
    for layer in layers:
        layer.forward = partial(_FORWARD[type(layer)], layer)
    try:
        with torch.device(device):
            yield model
    finally:
        for layer in layers:
            del layer.forward


def _mask(width: Width, arch: Architecture) -> Tensor | float:
    """One for every channel that the gates let through, shape ``(C,)``, or one for all."""
    if arch.gates is None:
        return 1.0
    return torch.cat([_mask_of_part(part, arch) for part in parts_of(width)])


def _gate(setting: Setting, arch: Architecture) -> Tensor | None:
    """The weight of every value: of several dimensions, the product of their options'."""
    searched = any(len(dimension) > 1 for dimension in followed(setting))
    if not searched or arch.gates is None:
        return None
    samples = (_sample(dimension, arch) for dimension in followed(setting))
    return torch.stack([math.prod(each) for each in itertools.product(*samples)])


def _sample(dimension: Dimension, arch: Architecture) -> Tensor:
    """The gate, and one-hot numbers where a choice as a whole around it has the gate."""
    gate = arch.gates[arch.space.position(dimension)]
    if dimension not in arch.carried.settled:
        return gate
    return F.one_hot(torch.tensor(dimension.index(arch[dimension])), len(dimension)).to(gate)


def _mask_of_part(part: Setting, arch: Architecture) -> Tensor:
    gate = _gate(part, arch)
    if gate is None:
        return torch.ones(largest(part), dtype=arch.gates[0].dtype)
    width = torch.arange(largest(part))
    return sum(z * (width < c).to(gate) for z, c in zip(gate, choices(part), strict=True))


def _kernel_mask(layer: elastic.convolution.Convolution, arch: Architecture) -> Tensor | float:
    """One for every entry of the kernel that the gates let through."""
    sizes, whole = layer.kernel.sizes, layer.kernel.largest
    mask: Tensor | float = 1.0
    for setting in {followed(s): s for s in sizes}.values():
        gate = _gate(setting, arch)
        if gate is None:
            continue
        options = []
        for j in range(len(gate)):
            own = [
                int(choices(s)[j]) if followed(s) == followed(setting) else k
                for s, k in zip(sizes, whole, strict=True)
            ]
            margins = [m for s, k in zip(own, whole, strict=True) for m in [(k - s) // 2] * 2]
            options.append(F.pad(torch.ones(own).to(gate), margins[::-1]))
        mask = mask * sum(z * option for z, option in zip(gate, options, strict=True))
    return mask


def _channels(mask: Tensor | float, x: Tensor) -> Tensor | float:
    return mask if isinstance(mask, float) else mask.view(-1, *[1] * (x.dim() - 2))


def _convolution(layer: elastic.convolution.Convolution, x: Tensor, arch: Architecture) -> Tensor:
    weight, bias = layer.weight * _kernel_mask(layer, arch), layer.bias
    if not layer.groups.apart:
        return _convolved(layer, _consumed(x, layer.in_channels, arch, 1), weight, bias)
    if not isinstance(x, Each):
        return _convolved(layer, x, weight, bias)
    maps = [(m, m.shape[1]) for m in x.maps]  # of depthwise ones
    found = [_convolved(layer, m, weight[:c], None if bias is None else bias[:c]) for m, c in maps]
    return Each.of(found, x.setting, x.chosen)


def _convolved(
    layer: elastic.convolution.Convolution, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    window, groups = layer.window, layer.groups.number(x.shape[1])
    numbers = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    with torch.device("meta"):
        plain = layer.plain_layer(
            x.shape[1], len(weight), weight.shape[2:], **numbers, groups=groups,
            padding_mode=window.mode,
        )  # fmt: skip
    return plain._conv_forward(x, weight, bias)


def _transposed(layer: elastic.TransposedConvolution, x: Tensor, arch: Architecture) -> Tensor:
    window, groups = layer.window, layer.groups.number(x.shape[1])
    if groups == 1:
        x = x * _channels(_mask(layer.in_channels, arch), x)
    weight = layer.weight * _kernel_mask(layer, arch)
    convolve = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.dim()]
    numbers = window.stride, window.padding, layer.output_padding, groups, window.dilation
    return convolve(x, weight, layer.bias, *numbers)


def _linear(layer: elastic.Linear, x: Tensor, arch: Architecture) -> Tensor:
    return F.linear(_consumed(x, layer.in_features, arch, -1), layer.weight, layer.bias)


def _batch_norm(layer: elastic.BatchNorm, x: Tensor, arch: Architecture) -> Tensor:
    y = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
    c = arch.size(layer.channels)
    statistics = arch.statistics(layer.name, x[:, :c])
    if statistics is not None:  # of the active channels; the others have their batch's own
        weight, bias = layer.weight[:c], layer.bias[:c]
        fixed = F.batch_norm(x[:, :c], *statistics, weight, bias, eps=layer.eps)
        y = torch.cat((fixed, y[:, c:]), 1)
    return y if layer.activation is None else _activated(layer.activation, y, arch)


class Each(Tensor):
    """Every option of a map, of its own width each, with a graph; functions act on each."""

    @classmethod
    def of(cls, maps: list[Tensor], setting: Setting, chosen: int) -> Each:
        each = maps[chosen].as_subclass(cls)
        each.maps, each.setting, each.chosen = maps, setting, chosen
        return each

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found: list[Tensor] = []
        replaced((args, kwargs or {}), found.append)
        first = next(x for x in found if isinstance(x, cls))
        with torch._C.DisableTorchFunctionSubclass():
            sizes = [m.shape for m in first.maps]
            axis = next(i for i, n in enumerate(zip(*sizes, strict=True)) if len(set(n)) > 1)
            axis -= len(sizes[0])
            results = []
            for j, shape in enumerate(sizes):

                def own(x, j=j, size=shape[axis]):
                    if isinstance(x, cls):
                        return x.maps[j]
                    alike = x.dim() >= -axis and x.shape[axis] == max(n[axis] for n in sizes)
                    has = alike and not isinstance(x, nn.Parameter)  # those of plain layers
                    return x.narrow(axis, 0, size) if has else x

                results.append(func(*replaced(args, own), **replaced(kwargs or {}, own)))
        if isinstance(results[0], Tensor):
            return cls.of(results, first.setting, first.chosen)
        return results[first.chosen]


def _consumed(x: Tensor, width: Width, arch: Architecture, axis: int) -> Tensor:
    """The input of a layer whose weights range over all channels: what the gates let through."""
    if isinstance(x, Each):
        gate = _gate(x.setting, arch)
        return sum(
            z * F.pad(m.movedim(axis, -1), (0, largest(width) - m.shape[axis])).movedim(-1, axis)
            for z, m in zip(gate, x.maps, strict=True)
        )
    mask = _mask(width, arch)
    return x * (mask if axis == -1 else _channels(mask, x))


def _layer_norm(layer: elastic.LayerNorm, x: Tensor, arch: Architecture) -> Tensor:
    def normalized(x: Tensor) -> Tensor:
        c, centred = x.shape[-1], type(layer) is elastic.LayerNorm
        if centred:
            x = x - x.mean(-1, keepdim=True)
        eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
        y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        y = y if layer.weight is None else y * layer.weight[:c]
        return y if not centred or layer.bias is None else y + layer.bias[:c]

    gate = arch.gate(layer.features)
    if gate is None:
        return normalized(x)
    maps = x.maps if isinstance(x, Each) else [x[..., : int(c)] for c in choices(layer.features)]
    chosen = arch.option(layer.features)
    return Each.of([normalized(m) for m in maps], layer.features, chosen)


def _embedding(layer: elastic.Embedding, x: Tensor, arch: Architecture) -> Tensor:
    return F.embedding(x, layer.weight, layer.padding_idx)


def _recurrent(layer: elastic.Recurrent, x: Tensor, arch: Architecture) -> Tensor:
    """One step after another."""
    x, mask = x * _mask(layer.in_features, arch), _mask(layer.features, arch)
    found = []
    for i in range(layer.directions):
        h = c = x.new_zeros(len(x), layer.of_state.shape[3])
        states = []
        for step in x.unbind(1)[:: -1 if i else 1]:
            of_x, of_h = (
                torch.einsum("nk,gck->gnc", z, w[i]) + (0 if b is None else b[i][:, None])
                for z, w, b in (
                    (step, layer.of_input, layer.bias),
                    (h * mask, layer.of_state, layer.state_bias),
                )
            )
            if layer.kind == "lstm":
                a, f, g, o = of_x + of_h
                c = f.sigmoid() * c + a.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            elif layer.kind == "gru":
                r, z, n = of_x[0] + of_h[0], of_x[1] + of_h[1], of_x[2]
                n = (n + r.sigmoid() * of_h[2]).tanh()
                h = (1 - z.sigmoid()) * n + z.sigmoid() * h
            else:
                h = getattr(torch, layer.kind)(of_x[0] + of_h[0])
            states.append(h)
        found.append(torch.stack(states[:: -1 if i else 1], 1))
    return torch.cat(found, -1)


def _parameter(layer: elastic.Parameter, x: Tensor, arch: Architecture) -> Tensor:
    return layer.weight[None].repeat(len(x), *[1] * layer.weight.dim())


def _combine(setting: Setting, arch: Architecture, options: list[Tensor]) -> Tensor:
    gate = _gate(setting, arch)
    if gate is None:
        return options[choices(setting).index(arch.value(setting))]
    return sum(z * y for z, y in zip(gate, options, strict=True))


def _activation(layer: elastic.Activation, x: Tensor, arch: Architecture) -> Tensor:
    return _activated(layer.function, x, arch)


def _activated(function: Setting, x: Tensor, arch: Architecture) -> Tensor:
    return _combine(function, arch, [_function(c)(x) for c in choices(function)])


def _function(name: str) -> Callable[[Tensor], Tensor]:
    own = {
        "swish": F.silu, "gelu_tanh": partial(F.gelu, approximate="tanh"),
        "identity": nn.Identity(), "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    }  # fmt: skip
    return own.get(name) or getattr(F, name)


def _group_norm(layer: elastic.GroupNorm, x: Tensor, arch: Architecture) -> Tensor:
    return F.group_norm(x, x.shape[1] // layer.group_width, layer.weight, layer.bias, layer.eps)


def _prelu(layer: elastic.PReLU, x: Tensor, arch: Architecture) -> Tensor:
    return F.prelu(x, layer.weight)


def _squeeze_excite(layer: elastic.SqueezeExcite, x: Tensor, arch: Architecture) -> Tensor:
    squeezed = _activated(layer.activation, layer.reduce(x.flatten(2).mean(2), arch), arch)
    scale = _activated(layer.gate, layer.expand(squeezed, arch), arch)
    scaled = x * scale.view(*scale.shape, *[1] * (x.dim() - 2))
    options = [scaled if c else x for c in choices(layer.enabled)]
    return _combine(layer.enabled, arch, options)


def _split(layer: elastic.Split, x: Tensor, arch: Architecture) -> tuple[Tensor, ...]:
    return x.split([largest(part) for part in layer.channels.parts], layer.axis)


def _shortcut(layer: elastic.Shortcut, y: Tensor, x: Tensor, arch: Architecture) -> Tensor:
    sides = layer.inputs, layer.channels
    dimensions = list(dict.fromkeys(d for side in sides for d in followed(side)))
    there = 0.0
    for options in itertools.product(*(range(len(d)) for d in dimensions)):
        chosen = dict(zip(dimensions, options, strict=True))
        alone = Architecture(SearchSpace(dimensions), options) if dimensions else arch
        one, other = map(alone.size, sides)
        if one == other:
            there += math.prod(_sample(d, arch)[j] for d, j in chosen.items())
    if layer.projection is not None:
        y = y + (1 - there) * layer.projection(x, arch)
    both = min(y.shape[1], x.shape[1])
    return torch.cat((y[:, :both] + there * x[:, :both], y[:, both:]), 1)


def _wholes(layer: Wholes, x: Tensor, arch: Architecture) -> Tensor:
    dimensions = followed(layer.setting)
    if arch.carried.settled.issuperset(dimensions):
        return layer.alternative(arch.value(layer.setting), x, arch)
    settled = {"gates": arch.gates, "settled": arch.carried.settled.union(dimensions)}
    options = [
        layer.alternative(value, x, arch.with_option(layer.setting, j).carrying(**settled))
        for j, value in enumerate(choices(layer.setting))
    ]
    return _combine(layer.setting, arch, options)


def _stage(layer: elastic.Stage, x: Tensor, arch: Architecture) -> Tensor:
    outputs = []
    for i, child in enumerate(layer._modules.values()):  # one may be there twice
        if i == arch.size(layer.depth):  # no part of the network: as ghosts, by the batch alone
            arch = arch.carrying(statistics=None, noise=None)
        x = child(x, arch)
        outputs.append(x)
    return _combine(layer.depth, arch, [outputs[int(c) - 1] for c in choices(layer.depth)])


_FORWARD: dict[type[nn.Module], object] = {
    elastic.Conv1d: _convolution,
    elastic.Conv2d: _convolution,
    elastic.Conv3d: _convolution,
    elastic.DepthwiseConv2d: _convolution,
    elastic.ConvTranspose1d: _transposed,
    elastic.ConvTranspose2d: _transposed,
    elastic.ConvTranspose3d: _transposed,
    elastic.Linear: _linear,
    elastic.LayerNorm: _layer_norm,
    elastic.RMSNorm: _layer_norm,
    elastic.Embedding: _embedding,
    elastic.Parameter: _parameter,
    elastic.Recurrent: _recurrent,
    elastic.BatchNorm1d: _batch_norm,
    elastic.BatchNorm2d: _batch_norm,
    elastic.BatchNorm3d: _batch_norm,
    elastic.GroupNorm: _group_norm,
    elastic.PReLU: _prelu,
    elastic.Activation: _activation,
    elastic.SqueezeExcite: _squeeze_excite,
    elastic.Split: _split,
    elastic.Choice: _wholes,
    elastic.Resized: _wholes,
    elastic.Shortcut: _shortcut,
    elastic.Stage: _stage,
}
