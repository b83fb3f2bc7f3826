"""Functions that are given weights become the layers that they are.

``F.conv2d(x, self.weight)`` is a convolution; as a module it has a rule, as any. A weight that is
computed of parameters alone, as one that is standardized or a bias put together of others, stays
computed: the layer holds what computes it. Of one that follows the input there is no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from boundnas.convert import einsums
from boundnas.convert.graph import Function, Traced, Way
from boundnas.convert.reading import operator_name

_Given = Mapping[str, Any]


def as_modules(traced: Traced) -> None:
    """Replace functions in a graph by modules, which are added to its model."""
    for node in list(traced.graph.nodes):
        if node.target is torch.einsum:
            node = einsums.as_linear(traced, node, partial(_is_known, traced))
        _as_linear(traced, node)
        if node.op != "call_function" or node.target not in _MADE:
            continue
        names, weights, make = _MADE[node.target]
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        taken = {name: given.pop(name, None) for name in weights}
        held = {name: _tensor(traced, of) for name, of in taken.items()}
        x = given.pop("input", None)
        if "normalized_shape" in given:  # numbers of the example; the axes are the last ones
            given["normalized_shape"] = _numbers(given["normalized_shape"])
        if not isinstance(x, fx.Node) or any(isinstance(v, fx.Node) for v in given.values()):
            continue
        ways = {}
        for name in [n for n, found in held.items() if found is _UNKNOWN]:
            if node.target in _COMPUTED and (way := _way(traced, taken[name])) is not None:
                ways[name], held[name] = way, _given(way)
        if any(found is _UNKNOWN for found in held.values()):
            continue
        module = make(held, given)
        if module is not None:
            name = added(traced.model, node, node.target.__name__, module)
            kwargs = {k: of for k, of in taken.items() if of is not None} if ways else {}
            if ways:
                traced.computed[name] = Function(node.target, given, ways)
            node.op, node.target, node.args, node.kwargs = "call_module", name, (x,), kwargs


def _numbers(sizes: Any) -> tuple[int, ...]:
    """Sizes as they are in the example."""
    sizes = sizes.meta["form"] if isinstance(sizes, fx.Node) else sizes
    each = sizes if isinstance(sizes, tuple | list) else (sizes,)
    return tuple(n.meta["form"] if isinstance(n, fx.Node) else n for n in each)


@torch.no_grad()
def _given(way: Way) -> Tensor:
    """What a weight is now."""
    weight: Tensor = way.function(*way.parts.values())
    return weight


def _as_linear(traced: Traced, node: fx.Node) -> None:
    """Have ``x @ weight.T`` and ``x @ weight`` be the linear functions that they are."""
    if operator_name(node) not in ("matmul", "mm") or len(node.args) != 2 or node.kwargs:
        return
    x, weight = node.args
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or not x.meta["values"]:
        return
    rows, *columns = weight.meta["form"].shape
    if len(columns) != 1 or len(x.meta["form"].shape) < 2 or not _is_known(traced, weight):
        return
    held = weight.args[0] if weight.args else None
    name = str(weight.args[1:]) if operator_name(weight) == "getattr" else operator_name(weight)
    turns = name in ("('T',)", "('mT',)", "t", "transpose", "swapaxes")
    if not (turns and isinstance(held, fx.Node) and held.op == "get_attr"):
        held = traced.put(node, weight, "t", (), (*columns, rows))
    node.op, node.target, node.args = "call_function", F.linear, (x, held)


def added(model: nn.Module, node: fx.Node, name: str, module: nn.Module) -> str:
    """Put a module into the one whose ``forward`` calls a node, under a free name: its full one."""
    inside = str(node.meta["inside"])
    holder = model.get_submodule(inside)
    free, number = name, 2
    while hasattr(holder, free):
        free, number = f"{name}{number}", number + 1
    holder.add_module(free, module)
    return f"{inside}.{free}".lstrip(".")


_UNKNOWN = object()


def _tensor(traced: Traced, given: Any) -> Any:
    """The parameter or buffer that a node reads; none where none is given."""
    if given is None:
        return None
    if not isinstance(given, fx.Node) or given.op != "get_attr":
        return _UNKNOWN
    if str(given.target) in traced.constants:
        return _UNKNOWN
    return traced.attribute(str(given.target))


def _is_known(traced: Traced, given: fx.Node) -> bool:
    """Whether a node is a weight, or is computed of weights alone."""
    return _tensor(traced, given) is not _UNKNOWN or _way(traced, given) is not None


def _way(traced: Traced, last: fx.Node) -> Way | None:
    """How a weight is computed of parameters and buffers, by functions; none for any other."""
    if last.meta["follows"]:
        return None
    wanted = {last}
    for node in reversed(last.graph.nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    if any(node.op not in ("get_attr", "call_function", "call_method") for node in wanted):
        return None
    graph, parts, copies = fx.Graph(), dict[str, Tensor](), dict[fx.Node, fx.Node]()
    nodes = [node for node in last.graph.nodes if node in wanted]
    for node in (n for n in nodes if n.op == "get_attr"):
        name = f"part{len(parts)}"
        copies[node], parts[name] = graph.placeholder(name), traced.attribute(str(node.target))
    for node in (n for n in nodes if n.op != "get_attr"):
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[last])
    return Way(fx.GraphModule({}, graph, class_name="Weight"), parts)


def _convolution(kind: type[nn.Module]) -> Callable[[_Given, _Given], nn.Module | None]:
    def make(held: _Given, given: _Given) -> nn.Module | None:
        weight = held["weight"]
        if not isinstance(weight, Tensor):
            return None
        first, second = weight.shape[0], weight.shape[1] * given.get("groups", 1)
        turned = issubclass(kind, nn.modules.conv._ConvTransposeNd)  # which has its inputs first
        sizes = (first, second) if turned else (second, first)
        with torch.device("meta"):
            module = kind(*sizes, tuple(weight.shape[2:]), bias=held["bias"] is not None, **given)
        return _holding(module, held)

    return make


def _linear(held: _Given, given: _Given) -> nn.Module | None:
    weight = held["weight"]
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], held["bias"] is not None)
    return _holding(module, held)


def _batch_norm(held: _Given, given: _Given) -> nn.Module | None:
    mean = held["running_mean"]
    if given.get("training", False) or not all(isinstance(t, Tensor) for t in held.values()):
        return None
    with torch.device("meta"):
        module = nn.BatchNorm2d(len(mean), given.get("eps", 1e-5))
    return _holding(module, held)


def _layer_norm(held: _Given, given: _Given) -> nn.Module | None:
    shape, weight, bias = given["normalized_shape"], held["weight"], held["bias"]
    if weight is None and bias is not None:
        return None
    with torch.device("meta"):
        module = nn.LayerNorm(
            list(shape), given.get("eps", 1e-5), weight is not None, bias is not None
        )
    return _holding(module, held)


def _rms_norm(held: _Given, given: _Given) -> nn.Module:
    with torch.device("meta"):
        affine = held["weight"] is not None
        module = nn.RMSNorm(list(given["normalized_shape"]), given.get("eps"), affine)
    return _holding(module, held)


def _group_norm(held: _Given, given: _Given) -> nn.Module | None:
    weight, bias = held["weight"], held["bias"]
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return None
    with torch.device("meta"):
        module = nn.GroupNorm(given["num_groups"], len(weight), given.get("eps", 1e-5))
    return _holding(module, held)


def _embedding(held: _Given, given: _Given) -> nn.Module | None:
    weight, odd = held["weight"], ("max_norm", "scale_grad_by_freq", "sparse")
    if not isinstance(weight, Tensor) or any(given.get(name) for name in odd):
        return None
    with torch.device("meta"):
        module = nn.Embedding(len(weight), weight.shape[1], given.get("padding_idx"))
    return _holding(module, held)


def _dropout(kind: type[nn.Module]) -> Callable[[_Given, _Given], nn.Module]:
    return lambda held, given: kind(given.get("p", 0.5))


def _rrelu(held: _Given, given: _Given) -> nn.Module:
    return nn.RReLU(given.get("lower", 1 / 8), given.get("upper", 1 / 3))


def _holding(module: nn.Module, held: _Given) -> nn.Module:
    for name, tensor in held.items():
        if tensor is None:
            continue
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            kept = isinstance(tensor, nn.Parameter)
            module._parameters[name] = tensor if kept else nn.Parameter(tensor, False)
    return module


_CONVOLVED = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip
_NORMALIZED = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip
_LOOKED_UP = (
    "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse",
)  # fmt: skip
_WEIGHTS = ("weight", "bias")

DROPOUTS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}

_COMPUTED = (
    F.conv1d, F.conv2d, F.conv3d, F.linear,
    F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
)  # fmt: skip
"""Functions whose weights may be computed."""

_MADE: dict[Any, tuple[tuple[str, ...], tuple[str, ...], Any]] = {
    F.conv1d: (_CONVOLVED, _WEIGHTS, _convolution(nn.Conv1d)),
    F.conv2d: (_CONVOLVED, _WEIGHTS, _convolution(nn.Conv2d)),
    F.conv3d: (_CONVOLVED, _WEIGHTS, _convolution(nn.Conv3d)),
    F.conv_transpose1d: (_TRANSPOSED, _WEIGHTS, _convolution(nn.ConvTranspose1d)),
    F.conv_transpose2d: (_TRANSPOSED, _WEIGHTS, _convolution(nn.ConvTranspose2d)),
    F.conv_transpose3d: (_TRANSPOSED, _WEIGHTS, _convolution(nn.ConvTranspose3d)),
    F.linear: (("input", "weight", "bias"), _WEIGHTS, _linear),
    F.batch_norm: (_NORMALIZED, ("running_mean", "running_var", *_WEIGHTS), _batch_norm),
    F.layer_norm: (("input", "normalized_shape", "weight", "bias", "eps"), _WEIGHTS, _layer_norm),
    F.rms_norm: (("input", "normalized_shape", "weight", "eps"), ("weight",), _rms_norm),
    F.group_norm: (("input", "num_groups", "weight", "bias", "eps"), _WEIGHTS, _group_norm),
    F.embedding: (_LOOKED_UP, ("weight",), _embedding),
    **{
        function: (("input", "p", "training", "inplace"), (), _dropout(kind))
        for function, kind in DROPOUTS.items()
    },
    F.rrelu: (("input", "lower", "upper", "training", "inplace"), (), _rrelu),
}
"""Of a function: its arguments in order, those of them that are weights, and what makes a module of
the weights and the rest."""
