"""Elastic layers in place of plain ones, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas import elastic
from boundnas.convert.axes import Group
from boundnas.convert.dimensions import Plan
from boundnas.convert.facts import Binding
from boundnas.convert.importance import along
from boundnas.convert.known import DropBranch
from boundnas.convert.weights import Weight
from boundnas.elastic.computed import compute


@dataclass
class Builder:
    """Makes the elastic form of a network's layers.

    Args:
        plan: What is searched.
        orders: Of groups whose channels are sorted.
        moments: Filled with mean and variance of every batch normalization.
        whole: Filled with what modules that could not be followed gave in the example.
    """

    plan: Plan
    orders: Mapping[Group, Tensor]
    moments: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)
    whole: dict[nn.Module, Any] = field(default_factory=dict)
    _made: dict[str, nn.Module | None] = field(default_factory=dict)

    def built(self, binding: Binding) -> nn.Module | None:
        """The elastic form of a layer, made once; none for one that stays as it is."""
        if binding.name not in self._made:
            self._made[binding.name] = self._built(binding)
        return self._made[binding.name]

    def _built(self, binding: Binding) -> nn.Module | None:
        module = binding.module
        searched = any(map(self.plan.is_searched, (binding.inputs, binding.outputs)))
        if not searched and binding.name not in self.plan.kernels and type(module) not in _ALWAYS:
            return None
        return _BUILT[type(module)](self, binding).train()

    def parameter_of(self, weight: Weight) -> nn.Module | None:
        """The elastic form of a weight; none for one that stays as it is."""
        read = self.plan.read
        map_ = read.values[weight.last]
        axes = weight.axes(map_)
        if not weight.is_repeated and not any(map(self.plan.is_searched, axes)):
            return None
        sizes = zip(axes, weight.shape(map_), strict=True)
        layer = _empty(elastic.Parameter, [self.plan.width(axis, n) for axis, n in sizes])
        value = weight.value(read.traced, read.values)
        held = self.ordered(value, *(along(axis, self.orders) for axis in axes))
        held_as = read.traced.attribute(weight.name)
        trained = isinstance(held_as, nn.Parameter) and held_as.requires_grad
        layer.weight = nn.Parameter(held, requires_grad=trained)
        return layer.train()

    def parameter(self, held: Tensor | None, *orders: Tensor | None) -> nn.Parameter | None:
        """A copy of a weight, each of its axes in an order."""
        if held is None:
            return None
        return nn.Parameter(self.ordered(held, *orders), requires_grad=held.requires_grad)

    def hold(self, layer: Any, binding: Binding, name: str, *orders: Tensor | None) -> None:
        """Give a layer a weight of the one it stands for, each of its axes in an order."""
        function = self.plan.read.traced.computed.get(binding.name)
        if function is None or name not in function.weights:
            setattr(layer, name, self.parameter(getattr(binding.module, name), *orders))
            return
        way = function.weights[name]
        compute(layer, name, way.function, way.parts, orders)

    def ordered(self, held: Any, *orders: Tensor | None) -> Tensor:
        """A copy of a tensor, each of its axes in an order."""
        value: Tensor = held.detach().clone()
        for axis, order in enumerate(orders):
            if order is not None:
                value = value.index_select(axis, order.to(value.device))
        return value


def _empty(kind: Callable[..., nn.Module], *arguments: Any, **named: Any) -> Any:
    """A layer whose weights nobody draws."""
    with torch.device("meta"):
        return kind(*arguments, **named)


def _convolution(builder: Builder, binding: Binding) -> nn.Module:
    module, plan = binding.module, builder.plan
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    inputs = plan.width(binding.inputs, module.in_channels)
    outputs = plan.width(binding.outputs, module.out_channels)
    group_width = None
    if module.groups > 1 and plan.is_searched(binding.inputs):
        group_width = module.in_channels // module.groups
    layer = _empty(
        _CONVOLUTIONS[type(module)], inputs, outputs,
        plan.kernels.get(binding.name, module.kernel_size), module.stride, module.padding,
        module.dilation, 1 if group_width else module.groups, module.bias is not None,
        module.padding_mode, group_width=group_width,
    )  # fmt: skip
    rows = along(binding.outputs, builder.orders)
    columns = along(binding.inputs, builder.orders) if module.groups == 1 else None
    builder.hold(layer, binding, "weight", rows, columns)
    builder.hold(layer, binding, "bias", rows)
    return layer


def _transposed(builder: Builder, binding: Binding) -> nn.Module:
    module, plan = binding.module, builder.plan
    assert isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    layer = _empty(
        _TRANSPOSED[type(module)],
        plan.width(binding.inputs, module.in_channels),
        plan.width(binding.outputs, module.out_channels),
        module.kernel_size, module.stride, module.padding, module.output_padding,
        bias=module.bias is not None, dilation=module.dilation,
    )  # fmt: skip
    rows, columns = (along(axis, builder.orders) for axis in (binding.outputs, binding.inputs))
    builder.hold(layer, binding, "weight", columns, rows)
    builder.hold(layer, binding, "bias", rows)
    return layer


def _linear(builder: Builder, binding: Binding) -> nn.Module:
    module, plan = binding.module, builder.plan
    assert isinstance(module, nn.Linear)
    table = plan.read.tied.get(binding.name)
    tied = None if table is None else builder.built(plan.read.bindings[table])
    layer = _empty(
        elastic.Linear,
        plan.width(binding.inputs, module.in_features),
        plan.width(binding.outputs, module.out_features),
        module.bias is not None,
        tied,
    )
    rows = along(binding.outputs, builder.orders)
    columns = along(binding.inputs, builder.orders)
    if tied is None:
        builder.hold(layer, binding, "weight", rows, columns)
    builder.hold(layer, binding, "bias", rows)
    return layer


def _recurrent(builder: Builder, binding: Binding) -> nn.Module:
    module, plan = binding.module, builder.plan
    assert isinstance(module, nn.RNNBase)
    assert binding.outputs is not None
    own, suffixes = module.hidden_size, ("", "_reverse")[: 1 + module.bidirectional]
    state = binding.outputs.between(0, own)
    layer = _empty(
        elastic.Recurrent,
        module.nonlinearity if isinstance(module, nn.RNN) else module.mode.lower(),
        plan.width(binding.inputs, module.input_size), plan.width(state, own),
        module.bias, module.bidirectional,
    )  # fmt: skip
    rows, columns = along(state, builder.orders), along(binding.inputs, builder.orders)
    names = {"of_input": ("weight_ih", columns), "of_state": ("weight_hh", rows)}
    if module.bias:
        names |= {"bias": ("bias_ih", None), "state_bias": ("bias_hh", None)}
    for name, (theirs, last) in names.items():
        held = [getattr(module, f"{theirs}_l0{suffix}") for suffix in suffixes]
        stacked = torch.stack([w.detach().unflatten(0, (-1, own)) for w in held])
        value = builder.ordered(stacked, None, None, rows, last)
        setattr(layer, name, nn.Parameter(value, requires_grad=held[0].requires_grad))
    return layer


def _batch_norm(builder: Builder, binding: Binding) -> nn.Module:
    module = binding.module
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    channels = builder.plan.width(binding.inputs, module.num_features)
    rank = len(builder.plan.read.values[_inputs(binding)[0]].shape)
    layer = _empty(_BATCH_NORMS[max(rank, 3)], channels, module.eps, affine=module.affine)
    order = along(binding.inputs, builder.orders)
    _hold_affine(builder, layer, module, order)
    mean, var = (builder.ordered(s, order) for s in (module.running_mean, module.running_var))
    builder.moments[layer] = mean, var
    return layer


def _hold_affine(builder: Builder, layer: Any, module: Any, order: Tensor | None) -> None:
    """The scale and shift of a norm; of one without they are no weights."""
    for name in ("weight", "bias"):
        held = getattr(layer, name)
        made = builder.parameter(getattr(module, name), order)
        fill = torch.ones if name == "weight" else torch.zeros
        setattr(layer, name, fill(held.shape) if made is None else made)


def _group_norm(builder: Builder, binding: Binding) -> nn.Module:
    module = binding.module
    assert isinstance(module, nn.GroupNorm)
    channels = builder.plan.width(binding.inputs, module.num_channels)
    layer = _empty(
        elastic.GroupNorm, channels, module.num_channels // module.num_groups, module.eps,
        module.affine,
    )  # fmt: skip
    _hold_affine(builder, layer, module, along(binding.inputs, builder.orders))
    return layer


def _layer_norm(builder: Builder, binding: Binding) -> nn.Module:
    module = binding.module
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
    features = builder.plan.width(binding.inputs, module.normalized_shape[0])
    layer: Any
    if isinstance(module, nn.LayerNorm):
        affine, bias = module.elementwise_affine, module.bias is not None
        layer = _empty(elastic.LayerNorm, features, module.eps, affine, bias)
    else:
        layer = _empty(elastic.RMSNorm, features, module.eps, module.elementwise_affine)
    order = along(binding.inputs, builder.orders)
    layer.weight = builder.parameter(module.weight, order)
    layer.bias = builder.parameter(getattr(module, "bias", None), order)
    return layer


def _embedding(builder: Builder, binding: Binding) -> nn.Module:
    module = binding.module
    assert isinstance(module, nn.Embedding)
    features = builder.plan.width(binding.outputs, module.embedding_dim)
    layer = _empty(elastic.Embedding, module.num_embeddings, features)
    layer.padding_idx = module.padding_idx
    layer.weight = builder.parameter(module.weight, None, along(binding.outputs, builder.orders))
    return layer


def _dropout(builder: Builder, binding: Binding) -> nn.Module:
    """Entry by entry: on maps of pixels too, wherever their channels lie."""
    module, given = binding.module, [builder.plan.read.values[n] for n in _inputs(binding)]
    maps = [x for x in given if len(x.shape) > 2]  # of others both axes are the same
    axis = -1 if any(x.axes[1] is None or x.axes[-1] is not None for x in maps) else 1
    if isinstance(module, nn.RReLU):
        return elastic.RReLU(module.lower, module.upper, axis)
    assert isinstance(module, nn.modules.dropout._DropoutNd)
    return _DROPOUTS[type(module)](module.p, axis, pixels=bool(maps))


def _dropout_of_channels(builder: Builder, binding: Binding) -> nn.Module:
    assert isinstance(binding.module, nn.modules.dropout._DropoutNd)
    return _DROPOUTS[type(binding.module)](binding.module.p)


def _drop_branch(builder: Builder, binding: Binding) -> nn.Module:
    assert isinstance(binding.module, DropBranch)
    return elastic.DropConnect(binding.module.p)


def _inputs(binding: Binding) -> list[fx.Node]:
    """What the calls of a layer take."""
    found = (n.args[0] if n.args else next(iter(n.kwargs.values())) for n in binding.nodes)
    return [node for node in found if isinstance(node, fx.Node)]


_CONVOLUTIONS: dict[type[nn.Module], type[elastic.Convolution]] = {
    nn.Conv1d: elastic.Conv1d,
    nn.Conv2d: elastic.Conv2d,
    nn.Conv3d: elastic.Conv3d,
}

_TRANSPOSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.ConvTranspose1d: elastic.ConvTranspose1d,
    nn.ConvTranspose2d: elastic.ConvTranspose2d,
    nn.ConvTranspose3d: elastic.ConvTranspose3d,
}

_BATCH_NORMS: dict[int, type[elastic.BatchNorm]] = {
    3: elastic.BatchNorm1d,
    4: elastic.BatchNorm2d,
    5: elastic.BatchNorm3d,
}
"""By the axes of the maps that they take."""

_NORMALIZING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_DROPOUTS: dict[type[nn.Module], type[elastic.Dropout]] = {
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), elastic.Dropout),
    **dict.fromkeys((nn.AlphaDropout, nn.FeatureAlphaDropout), elastic.AlphaDropout),
}

_BY_ENTRY = (nn.Dropout, nn.AlphaDropout, nn.RReLU)
"""Layers that draw for each entry by itself."""

_BUILT: dict[type[nn.Module], Callable[[Builder, Binding], nn.Module]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_TRANSPOSED, _transposed),
    nn.Linear: _linear,
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), _recurrent),
    **dict.fromkeys(_NORMALIZING, _batch_norm),
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.Embedding: _embedding,
    **dict.fromkeys(_DROPOUTS, _dropout_of_channels),
    **dict.fromkeys(_BY_ENTRY, _dropout),
    DropBranch: _drop_branch,
}

_ALWAYS = (*_NORMALIZING, *_DROPOUTS, *_BY_ENTRY, DropBranch)
"""Layers that are elastic whatever is searched: plain ones keep statistics, or draw at random."""
