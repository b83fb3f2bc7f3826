"""Rules of the modules of ``torch.nn``."""

from __future__ import annotations

from typing import Any

from torch import nn

from boundnas.convert.axes import Axis, Map
from boundnas.convert.known import DropBranch
from boundnas.convert.reading import Call, NoRuleError, rule, unite_axes

_ELSE = "takes its channels on another axis"
_TOGETHER = "is called with several maps, which must have the same channels"


def joins(call: Call, inputs: Axis | None) -> Axis | None:
    """What a module takes; at a second call it must be what it took at the first."""
    held = call.held()
    if held is None:
        return inputs
    return unite_axes(held.inputs, inputs, call, _TOGETHER)


def _makes(call: Call, size: int) -> Axis:
    held = call.held()
    if held is not None:
        assert held.outputs is not None
        return held.outputs
    return call.produced(size)


def others_fixed(call: Call, x: Map, axis: int) -> None:
    """Channels may lie along one axis only."""
    others = [a for i, a in enumerate(x.axes) if i != axis % len(x.axes)]
    call.fix(*others, why=_ELSE)


def _map_of(call: Call, axes: int) -> Map:
    x = call.map
    if len(x.shape) != axes:
        raise NoRuleError(f"is called without a batch axis, with {len(x.shape)} axes")
    return x


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(call: Call) -> Map:
    """New channels; a depthwise one passes its own on, and groups stay whole."""
    module = call.module
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    x = _map_of(call, 2 + len(module.kernel_size))
    others_fixed(call, x, 1)
    inputs = joins(call, x.axes[1])
    outputs = _makes(call, module.out_channels) if module.groups == 1 else _grouped(call, inputs)
    call.bind(inputs, outputs)
    return call.result(x.axes[0], outputs, *[None] * len(module.kernel_size))


def _grouped(call: Call, inputs: Axis | None) -> Axis | None:
    """Whole groups stay; each gives as many channels as before."""
    module = call.module
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if inputs is None:
        return None
    width, factor = module.in_channels // module.groups, module.out_channels / module.in_channels
    if not factor.is_integer() or not _of_units(inputs, width):
        call.fix(inputs, why="has groups that do not follow its channels")
        return None
    return inputs if factor == 1 else inputs.times(int(factor))


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed(call: Call) -> Map:
    """New channels."""
    module = call.module
    assert isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    x = _map_of(call, 2 + len(module.kernel_size))
    others_fixed(call, x, 1)
    if module.groups > 1 or call.argument(1, "output_size") is not None:
        raise NoRuleError("is transposed and has groups, or is told the size of its result")
    inputs, outputs = joins(call, x.axes[1]), _makes(call, module.out_channels)
    call.bind(inputs, outputs)
    return call.result(x.axes[0], outputs, *[None] * len(module.kernel_size))


@rule(nn.Linear)
def linear(call: Call) -> Map:
    """New features."""
    module, x = call.module, call.map
    assert isinstance(module, nn.Linear)
    others, tied = x.axes[:-1], call.read.tied.get(call.name)
    if any(axis is not None and not axis.is_fixed for axis in others):  # as of an MLP over tokens
        if tied:
            raise NoRuleError(_ELSE)
        call.fix(x.axes[-1], why=_ELSE)
        return call.result(*others, None)
    if tied:
        return _by_table(call, tied)
    inputs, outputs = joins(call, x.axes[-1]), _makes(call, module.out_features)
    call.bind(inputs, outputs)
    return call.result(*x.axes[:-1], outputs)


def _by_table(call: Call, table: str) -> Map:
    """A number for each row of a table, whose features it takes."""
    x, held = call.map, call.read.bindings.get(table)
    if held is None:
        raise NoRuleError(f"shares a weight with {table}")
    inputs = unite_axes(held.outputs, x.axes[-1], call, f"shares a weight with {table}")
    call.bind(inputs, None)
    return call.result(*x.axes[:-1], None)


_BATCHES: dict[Any, tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (2, 3, 4, 5),
}


@rule(*_BATCHES)
def batch_norm(call: Call) -> Map:
    """Follows; its statistics travel with an architecture."""
    module = call.module
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    x = call.map
    if len(x.shape) not in _BATCHES[type(module)]:
        raise NoRuleError("is called without a batch axis")
    others_fixed(call, x, 1)
    if module.running_mean is None:
        raise NoRuleError("has no running statistics")
    axis = joins(call, x.axes[1])
    call.bind(axis, axis)
    return call.result(x.axes[0], axis, *[None] * (len(x.shape) - 2))


@rule(nn.GroupNorm)
def group_norm(call: Call) -> Map:
    """Follows, by whole groups."""
    module, x = call.module, call.map
    assert isinstance(module, nn.GroupNorm)
    others_fixed(call, x, 1)
    width, axis = module.num_channels // module.num_groups, joins(call, x.axes[1])
    if axis is not None and not _of_units(axis, width):
        call.fix(axis, why="has groups that do not follow its channels")
    call.bind(axis, axis)
    return call.result(x.axes[0], axis, *[None] * (len(x.shape) - 2))


def _of_units(axis: Axis, width: int) -> bool:
    """Keep whole groups of channels; whether that can be."""
    if not all(s.factor == 1 and s.size % width == 0 for s in axis.segments):
        return False
    for group in axis.groups:
        group.of_units(width)
    return True


@rule(nn.LayerNorm, nn.RMSNorm)
def layer_norm(call: Call) -> Map:
    """Follows, over the last axis."""
    module, x = call.module, call.map
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
    if len(module.normalized_shape) != 1:
        raise NoRuleError("normalizes over several axes")
    others_fixed(call, x, -1)
    axis = joins(call, x.axes[-1])
    if axis is not None and len(axis.segments) > 1:
        call.fix(axis, why="normalizes over channels of several layers")
    call.bind(axis, axis)
    return call.result(*x.axes[:-1], axis)


@rule(nn.Embedding)
def embedding(call: Call) -> Map:
    """New features."""
    module, x = call.module, call.map
    assert isinstance(module, nn.Embedding)
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        raise NoRuleError("limits norms, scales gradients or is sparse")
    if not x.axes or x.axes[0] is None or not x.axes[0].of_samples:
        raise NoRuleError("takes the same rows for all samples, or samples on another axis")
    x.fix(call.reason("takes it for numbers of rows"))
    outputs = _makes(call, module.embedding_dim)
    call.bind(None, outputs)
    return call.result(*x.axes, outputs)


@rule(nn.Dropout, nn.AlphaDropout, nn.RReLU)
def dropout(call: Call) -> Map:
    """Passes on; what is drawn is by the library, entry by entry."""
    x, last = call.map, len(call.map.shape) - 1
    if call.node.args[:1] and call.node.args[0] in call.read.weights:
        call.fix(*x.axes, why="drops entries of a weight, for all samples at once")
    between = [a for i, a in enumerate(x.axes) if i not in (1, last)]
    call.fix(*(a for a in between if a is not None and not a.of_samples), why=_ELSEWHERE)
    call.bind(None, None)
    return x


_ELSEWHERE = "draws for channels that lie on another axis than the second or the last"

_AXES: dict[Any, tuple[int, ...]] = {
    nn.Dropout1d: (3,),
    nn.Dropout2d: (4,),
    nn.Dropout3d: (5,),
    nn.FeatureAlphaDropout: (3, 4, 5),
}


@rule(*_AXES)
def dropout_of_channels(call: Call) -> Map:
    """Likewise, whole channels."""
    x = call.map
    if len(x.shape) not in _AXES[type(call.module)]:
        raise NoRuleError("is called without a batch axis")
    others_fixed(call, x, 1)
    call.bind(None, None)
    return x


@rule(DropBranch)
def drop_branch(call: Call) -> Map:
    """Likewise, whole samples."""
    call.bind(None, None)
    return call.map


@rule("instance_norm")
def instance_norm(call: Call) -> Map:
    """Works on the pixels of each channel."""
    if any(call.argument(i, name) is not None for i, name in enumerate(_HELD, 1)):
        raise NoRuleError("has weights or statistics for each channel")
    return pooling(call)


_HELD = ("running_mean", "running_var", "weight", "bias")


@rule(
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d, nn.ReflectionPad2d,
    nn.ReplicationPad2d, nn.ConstantPad2d, nn.CircularPad2d,
    nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d,
    nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d,
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "lp_pool2d", "interpolate", "upsample",
)  # fmt: skip
def pooling(call: Call) -> Map:
    """Works on the pixels of each channel, which lie behind axis 1."""
    x = call.map
    if len(x.shape) < 3 or isinstance(call.form, tuple):
        raise NoRuleError("is called without a batch axis, or gives more than a map")
    call.fix(x.axes[0], *x.axes[2:], why="works on pixels, and gets channels there")
    return call.result(x.axes[0], x.axes[1], *[None] * (len(call.form.shape) - 2))
