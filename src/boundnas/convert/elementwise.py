"""Rules of what treats every entry by itself, or two maps entry by entry."""

from __future__ import annotations

from typing import Any

from torch import nn

from boundnas.convert.axes import Axis, Map, Size
from boundnas.convert.reading import Call, NoRuleError, rule, unite_axes


@rule(
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.LogSigmoid, nn.Threshold, nn.Identity,
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "threshold",
    "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "sin", "cos", "erf", "neg",
    "reciprocal", "clamp", "clamp_min", "clamp_max", "clip", "pow", "sign", "round", "floor",
    "ceil", "nan_to_num", "float", "double", "half", "bfloat16", "long", "contiguous", "clone",
    "detach", "type_as", "to", "positive",
    "add", "sub", "mul", "div", "truediv", "true_divide", "subtract", "multiply", "divide",
    "iadd", "isub", "imul", "itruediv", "maximum", "minimum", "lerp", "where", "masked_fill",
    "addcmul", "addcdiv", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_not", "zeros_like", "ones_like", "full_like", "floordiv", "mod", "rsub",
)  # fmt: skip
def elementwise(call: Call) -> Any:
    """Axes that lie upon each other are one."""
    maps = call.maps()
    if not maps:
        return _number(call)
    if isinstance(call.form, tuple) or not hasattr(call.form, "shape"):
        raise NoRuleError("gives no tensor")
    number = len(call.form.shape)
    return call.result(*(_axis(call, maps, i - number) for i in range(number)))


@rule(nn.PReLU)
def prelu(call: Call) -> Map:
    """One weight for all channels."""
    assert isinstance(call.module, nn.PReLU)
    if call.module.num_parameters != 1:
        raise NoRuleError("has a weight for each channel")
    return call.map


def _number(call: Call) -> Any:
    """A number that is computed from numbers."""
    if not isinstance(call.form, int | float):
        raise NoRuleError("has no rule for what it gives")
    of = [x for x in call.arguments() if isinstance(x, Size)]
    return Size(call.form, tuple(a for x in of for a in x.of), plain=any(x.plain for x in of))


def _axis(call: Call, maps: list[Map], i: int) -> Axis | None:
    """The axis of a result, ``i`` counted from the last one."""
    size = call.form.shape[i]
    there = [x for x in maps if len(x.shape) >= -i and x.shape[i] == size]
    axes = [x.axes[i] for x in there]
    if size == 1:
        axes = [axis for axis in axes if axis is not None]
    if not any(axes):
        return None
    found = axes[0]
    why = "combines it with what has no such channels, such as a weight of its own"
    for axis in axes[1:]:
        found = unite_axes(found, axis, call, why)
    return found
