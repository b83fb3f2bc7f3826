"""An independent count of what a network holds: names of functions, and who takes what later."""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from boundnas.nested import leaves

RESHAPES = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "getitem",
}  # fmt: skip
COPIES = {
    "transpose", "permute", "movedim", "cat", "stack", "mean", "sum", "max_pool2d", "avg_pool2d",
    "chunk", "split", "interpolate", "adaptive_avg_pool2d", "pad", "matmul", "linear", "layer_norm",
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear",
    "LayerNorm", "GroupNorm", "RMSNorm", "Embedding", "MaxPool2d", "AvgPool2d",
    "AdaptiveAvgPool2d", "Upsample", "repeat_interleave", "adaptive_avg_pool1d",
    "silu", "SiLU", "gelu", "GELU", "hardswish", "Hardswish", "mish", "Mish",
}  # fmt: skip
IN_PLACE = {
    "add", "mul", "sub", "truediv", "neg", "relu", "sigmoid", "tanh", "softmax", "softplus",
    "sin", "clamp", "exp", "hardsigmoid", "relu6", "pow", "sqrt", "rsqrt", "square", "to",
    "scaled_dot_product_attention", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ReLU", "ReLU6",
    *(m for m in nn.modules.activation.__all__ if m not in COPIES and "attention" not in m),
}  # fmt: skip


POOLS = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "interpolate", "MaxPool2d", "AvgPool2d"}
GATED = {"silu", "SiLU", "gelu", "GELU", "hardswish", "Hardswish", "mish", "Mish"}


def held(net, x, block=1):
    """Bytes at the widest moment of a pass of an extracted network, in blocks of channels."""
    nodes = list(net.graph.nodes)
    values = _Values(net, x).found
    at = {node: i for i, node in enumerate(nodes)}
    cells, size, room = {}, {}, {}

    def new(node, *tensors, kind=""):
        cells[node] = tuple((node, i) for i in range(len(tensors)))
        for cell, t in zip(cells[node], tensors, strict=True):
            size[cell] = room[cell] = _bytes(t)
            taken = [c for n in node.all_input_nodes for c in cells.get(n, ())]
            source = max(taken, key=size.get, default=cell)
            keeps = kind in IN_PLACE | POOLS | GATED and room[source] > size[source]
            if t.dim() == 4 and (kind.startswith("Conv") or keeps):
                room[cell] = size[cell] // t.shape[1] * -(-t.shape[1] // block) * block

    def needed(cell):
        """The last step that takes it under any of its names; the end for what is given back."""
        users = (u for node, of in cells.items() if cell in of for u in node.users)
        return max((at[u] for u in users), default=-1)

    given = {n for n in nodes if n.op == "placeholder"}
    joined = set()

    def added_into(conv):
        """The memory of the map that a convolution adds its result to, if there is one."""
        last = conv
        while len(last.users) == 1:
            (user,) = last.users
            if (_kind(net, user) or "").startswith("BatchNorm") and not _is_sequence(net, user):
                last = user
                continue
            others = [n for n in user.all_input_nodes if n is not last]
            if (
                _kind(net, user) == "add"
                and len(others) == 1
                and len(cells.get(others[0], ())) == 1
            ):
                (cell,) = cells[others[0]]
                reads = [c for n in conv.all_input_nodes for c in cells[n]]
                fits = size[cell] == _bytes(values[conv]) and needed(cell) == at[user]
                return cell if fits and cell[0] not in given and cell not in reads else None
            return None
        return None

    peak = 0
    for i, node in enumerate(nodes):
        made = [t for _, t in leaves(values[node]) if isinstance(t, Tensor)]
        taken = [c for n in node.all_input_nodes for c in cells.get(n, ())]
        extra = 0
        if node in given:
            new(node, *made)
            continue
        if node.op in ("get_attr", "output") or not taken or not made:
            continue
        kind = _kind(net, node)
        if kind == "getitem" and not isinstance(values[node.args[0]], Tensor):
            position = node.args[1]
            whole = cells[node.args[0]]
            if isinstance(position, int):
                cells[node] = (whole[position],)
            else:
                before = [k for k, _ in leaves(values[node.args[0]])]
                cells[node] = tuple(
                    c for c, k in zip(whole, before, strict=True) if k.startswith(str(position))
                )
        elif kind == "getitem" and made[0].numel() < values[node.args[0]].numel():
            new(node, *made)
        elif kind in RESHAPES or kind is None:
            cells[node] = tuple(taken)
        elif kind.startswith("Conv") and (cell := added_into(node)):
            cells[node] = (cell,)
            joined.add(node)
        elif kind.startswith("BatchNorm") and node.args[0] in joined:
            cells[node] = cells[node.args[0]]
            joined.add(node)
        else:
            free = [
                c for c in taken
                if needed(c) <= i and c[0] not in given and size[c] == _bytes(made[0])
            ]  # fmt: skip
            if kind in IN_PLACE and free:
                cells[node] = (free[0],)
            else:
                new(node, *made, kind=kind)
        if kind == "scaled_dot_product_attention":
            query, key = (values[n] for n in node.args[:2])
            extra = _bytes(query) // query.shape[-1] * key.shape[-2]
        alive = {c for of in cells.values() for c in of if c[0] in given or needed(c) >= i}
        alive |= set(cells[node])
        peak = max(peak, extra + sum(room[c] for c in alive))
    return peak


class _Values(fx.Interpreter):
    """What every node gives."""

    def __init__(self, net, x):
        super().__init__(net, garbage_collect_values=False)
        self.found = {}
        with torch.no_grad():
            self.run(x)

    def run_node(self, n):
        self.found[n] = super().run_node(n)
        return self.found[n]


def _is_sequence(net, node):
    return isinstance(net.get_submodule(node.target), nn.Sequential) and not isinstance(
        net.get_submodule(node.target)[-1], nn.Identity
    )


def _bytes(x):
    return x.numel() * x.element_size()


def _kind(net, node):
    """The name of the function or layer that decides what is done; none for what does nothing."""
    if node.op in ("placeholder", "output", "get_attr"):
        return node.op
    if node.op != "call_module":
        name = node.target if node.op == "call_method" else node.target.__name__
        name = name.strip("_").removeprefix("i") if name in ("iadd", "imul") else name.strip("_")
        return None if name in ("float", "dropout") else _known(name)
    layer = net.get_submodule(node.target)
    if isinstance(layer, fx.GraphModule):
        return None
    inner = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    kinds = [_known(type(m).__name__) for m in inner if not isinstance(m, nn.Identity | nn.Dropout)]
    return next((k for k in kinds if k in COPIES), kinds[0] if kinds else None)


def _known(name):
    assert name in RESHAPES | COPIES | IN_PLACE, f"{name}: say in tests/memory.py what it does"
    return name


assert F.silu.__name__ in COPIES
