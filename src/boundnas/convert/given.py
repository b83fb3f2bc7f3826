"""What `elasticize` is handed, looked at before anything is made of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from boundnas.convert.calling import called_with
from boundnas.convert.record import where
from boundnas.convert.rules import Rule
from boundnas.errors import ConvertError
from boundnas.nested import Inputs, described, leaves, mapped
from boundnas.supernet.modes import evaluating
from boundnas.supernet.place import first_line
from boundnas.supernet.supernet import Supernet

_WRAPPERS = {
    "OptimizedModule": "was compiled by torch.compile; give the module in it, model._orig_mod",
    "DataParallel": "calls another module on several devices; give that one, model.module",
    "DistributedDataParallel": "calls another module for several processes; give model.module",
    "FullyShardedDataParallel": "holds parts of weights; give the module that it was made of",
}
"""Modules that stand before a network, by the names of their classes."""
_PRECISIONS = (torch.float32, torch.float64)


def check_arguments(
    model: nn.Module, example: Inputs, rules: Mapping[str, Any], converters: Mapping[Any, Any]
) -> None:
    """Refuse what `elasticize` does not take.

    Raises:
        ConvertError: Names it.
    """
    parts = [x for _, x in leaves(example)]
    if not parts or not all(isinstance(x, Tensor) and x.dim() and len(x) for x in parts):
        raise ConvertError(
            "example is a batch that the network takes, a tensor with the batch axis first, or a "
            f"tuple or dict of such; found {type(example).__name__}"
        )
    for pattern, rule in rules.items():
        if not isinstance(pattern, str) or not isinstance(rule, Rule | None):
            raise ConvertError(
                f"rules are a bn.Rule, or None, by a name pattern; found {rule!r} at {pattern!r}"
            )
    for kind, function in converters.items():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module) and callable(function)):
            raise ConvertError(
                f"converters are functions by the type of a module; found {function!r} at {kind!r}"
            )
    _check_kind(model)
    _check_weights(model)
    _check_runs(model, example)


def copied(model: nn.Module) -> nn.Module:
    """A network with weights of its own.

    Raises:
        ConvertError: It cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except MemoryError:
        raise
    except Exception as error:  # whatever a module may hold
        raise ConvertError(f"{_computed(model)} cannot be copied: {first_line(error)}") from error


def hooked(module: nn.Module) -> str:
    """The hook that is called with a module, and would not be with what is made of it; or none."""
    hooks = (
        hook
        for found in (
            module._forward_pre_hooks, module._forward_hooks,
            module._backward_pre_hooks, module._backward_hooks,
        )
        for hook in found.values()
    )  # fmt: skip
    return next((getattr(h, "__qualname__", type(h).__name__) for h in hooks), "")


def _check_kind(model: nn.Module) -> None:
    name = type(model).__name__
    if isinstance(model, Supernet):
        raise ConvertError(f"{name} is a supernet already")
    for part, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ConvertError(
                f"{part or name} is TorchScript; give the Python module that it was made of"
            )
    if type(model).__module__.startswith("torch.") and name in _WRAPPERS:
        raise ConvertError(f"{name} {_WRAPPERS[name]}")
    if hook := hooked(model):
        raise ConvertError(
            f"{name} has a hook, {hook}, which a network that is made of it would not call; remove "
            "it, or put what it does into forward"
        )


def _check_weights(model: nn.Module) -> None:
    parameters = list(model.named_parameters())
    lazy = [name for name, p in parameters if is_lazy(p)]
    if lazy:
        raise ConvertError(
            f"{lazy[0]} has no size yet, as its module is lazy; call the network once on the "
            "example before"
        )
    devices = sorted({str(p.device) for _, p in parameters})
    if len(devices) > 1 or devices == ["meta"]:
        raise ConvertError(
            f"the weights lie on {' and '.join(devices)}; they must be on one device that holds "
            "them"
        )
    kinds = {p.dtype for _, p in parameters}
    if len(kinds) > 1 or not kinds <= {*_PRECISIONS}:
        names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
        raise ConvertError(
            f"the weights are {' and '.join(names)}; networks are made elastic, and train, in "
            "float32: call model.float() and give an example.float(). Of less precision only "
            "training can be (train.precision: bf16)"
        )
    for name, held in (*parameters, *_statistics(model)):
        if not held.isfinite().all():
            raise ConvertError(
                f"{name} holds {int((~held.isfinite()).sum())} numbers that are not finite, of "
                f"{held.numel()}; nothing can be trained from such weights"
            )


def _statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of normalizations; other buffers may be infinite, as masks of attention are."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            yield from ((f"{name}.{key}", b) for key, b in module.named_buffers())


def _check_runs(model: nn.Module, example: Inputs) -> None:
    try:
        with evaluating(model), torch.no_grad():
            output = called_with(model, mapped(Tensor.clone, example))
    except MemoryError:
        raise
    except Exception as error:  # whatever a forward may raise
        raise ConvertError(
            f"{type(model).__name__} fails on the example, {described(example)}: "
            f"{first_line(error)}{where(error)}; an example is a batch as the network takes it, "
            "with the axis of samples first"
        ) from error
    if not any(isinstance(x, Tensor) for _, x in leaves(output)):
        raise ConvertError(
            f"{type(model).__name__} gives {described(output)}; a network gives a tensor, or a "
            "tuple, list or dict of tensors"
        )


def _computed(model: nn.Module) -> str:
    """What of a network holds a tensor that was computed, which cannot be copied."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                by = f", by the hook {hook}" if (hook := hooked(module)) else ""
                return (
                    f"{name or type(model).__name__} holds a computed tensor, {key}{by}, so that "
                    "the network (undo it, as torch.nn.utils.remove_weight_norm and prune.remove "
                    "do)"
                )
    return type(model).__name__
