"""Networks as ONNX files that are written to be timed: many and small ones, of fixed shapes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import config
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from boundnas.errors import CostError

_NO_STACKS = "do_not_emit_stack_traces"
"""A switch of `torch.fx.config`; where a release of PyTorch has none, it does nothing."""

OPSET = 18
"""The version of ONNX's operators; the first in which all that is written here has one."""


class _Called(nn.Module):
    """A network as the exporter takes it, which knows no graph modules."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> object:
        """Whatever the network gives."""
        return self.net(*inputs)


def onnx_of(net: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """The content of an ONNX file of a network with its inputs ``input_0``, ``input_1``, ....

    By the exporter of TorchScript where it can: it takes 0.02 s for a block and 0.2 s for a whole
    network, the other one 0.7 and 6 s, and ONNX Runtime makes the same of both.

    Args:
        net: Takes the inputs one by one.
        inputs: Their shapes are those of the file.

    Raises:
        CostError: The network has something that ONNX has not.
    """
    called, given = _Called(net).eval(), tuple(inputs)
    names = [f"input_{number}" for number in range(len(inputs))]
    errors = []
    for write in (_by_torchscript, _by_export):
        try:
            with quiet(), redirect_stdout(StringIO()), torch.no_grad():
                return write(called, given, names)
        except Exception as error:  # of the exporters, whose errors have no common base
            errors.append(error)
    reason = (str(errors[0]).strip().splitlines() or [type(errors[0]).__name__])[0]
    raise CostError(
        f"no ONNX file can be made of a part of this network ({reason}); measure it in another "
        "runtime, as with runtime='torch', or replace that part"
    ) from errors[-1]


def _by_torchscript(net: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> bytes:
    content: Any = BytesIO()
    torch.onnx.export(net, inputs, content, dynamo=False, opset_version=OPSET, input_names=names)
    return content.getvalue()


def _by_export(net: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> bytes:
    with FourAxes():
        written = torch.onnx.export(net, inputs, dynamo=True, verbose=False, input_names=names)
    assert written is not None
    return written.model_proto.SerializeToString()


class FourAxes(TorchFunctionMode):
    """Within it attention is called on four axes, the only ones that PyTorch's exporter takes.

    Attention within windows has more, ``(N, windows, heads, T, C)``, and that of one head may
    have three. It computes the same but for rounding.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``."""
        call = _attended if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *rest: Any,
    **options: Any,
) -> Tensor:
    attend, taken = F.scaled_dot_product_attention, (query, key, value)
    if all(x.dim() == 4 for x in taken):
        return attend(*taken, attn_mask, *rest, **options)
    before = torch.broadcast_shapes(*(x.shape[:-3] for x in taken))
    if attn_mask is not None and attn_mask.dim() > 3:
        attn_mask = _four(attn_mask, before)
    query, key, value = (_four(x, before) for x in taken)
    y = attend(query, key, value, attn_mask, *rest, **options)
    return y.reshape(*before, *y.shape[-3:])


def _four(x: Tensor, before: Sequence[int]) -> Tensor:
    """A tensor with one axis, of all of ``before``, where it has any number before its last three.

    Args:
        x: Of shape ``(..., H, T, C)``, where ``...`` broadcasts to ``before``.
        before: The shape that all of them have in common.
    """
    return x.expand(*(before or (1,)), *x.shape[-3:]).flatten(0, -4)


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporters warn about their own insides; nothing a user could act on.

    Nor do they note where each node was called, which no file says and takes a sixth of an export.
    """
    logger, before = logging.getLogger("torch.onnx"), vars(config).get(_NO_STACKS, False)
    level = logger.level
    logger.setLevel(logging.ERROR)
    setattr(config, _NO_STACKS, True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        setattr(config, _NO_STACKS, before)
