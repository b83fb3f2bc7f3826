"""Rules of recurrent layers."""

from __future__ import annotations

from operator import getitem
from typing import Any

from torch import fx, nn

from boundnas.convert.axes import Axis, Map
from boundnas.convert.layers import joins, others_fixed
from boundnas.convert.reading import Call, NoRuleError, operator_name, rule, unknown


@rule(nn.LSTM, nn.GRU, nn.RNN)
def recurrent(call: Call) -> Any:
    """New features of every step; a state of zeros that it starts from follows them."""
    module, x = call.module, call.map
    assert isinstance(module, nn.RNNBase)
    if module.num_layers > 1 or module.proj_size or not module.batch_first or len(x.shape) != 3:
        raise NoRuleError("has several layers or a projection, or takes its steps first")
    if any(n.target is not getitem or n.args[1] != 0 for n in call.node.users):
        raise NoRuleError("gives the memory of its cells, too")
    if not _is_zeros(call.node.args[1:]) or not _is_zeros(tuple(call.node.kwargs.values())):
        raise NoRuleError("starts from a state that is not made of zeros")
    others_fixed(call, x, -1)
    inputs, held = joins(call, x.axes[-1]), call.held()
    if held is None:
        outputs = Axis(call.produced(module.hidden_size).parts * (1 + module.bidirectional))
    else:
        assert held.outputs is not None
        outputs = held.outputs
    call.bind(inputs, outputs)
    of_steps, state = call.form
    return Map(of_steps.shape, (x.axes[0], None, outputs)), unknown(state)


_PASSING = {
    "getitem", "to", "float", "double", "contiguous", "detach", "expand", "repeat", "clone",
    "unsqueeze", "type_as", "cuda", "cpu",
}  # fmt: skip


def _is_zeros(given: Any) -> bool:
    """Whether a state is none, or made of zeros."""
    if given is None or isinstance(given, tuple | list):
        return all(map(_is_zeros, given or ()))
    if not isinstance(given, fx.Node):
        return False
    name = operator_name(given)
    if name in _PASSING:
        return _is_zeros(given.args[0])
    return name in ("zeros", "new_zeros", "zeros_like")
