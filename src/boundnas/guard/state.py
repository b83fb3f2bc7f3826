"""What a forward pass may not change: a model's tensors and attributes, random generators."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from boundnas.errors import SpaceError

_KEPT = (bool, int, float, complex, str, bytes, type(None))


def random_states(device: torch.device) -> list[bytes]:
    """The states of torch's global generators, of the CPU and of a device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in states]


def python_states() -> dict[str, Any]:
    """The states of the generators that are not torch's, by name."""
    states: dict[str, Any] = {"Python's module random": random.getstate()}
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        states["NumPy"] = str(numpy.random.get_state())
    return states


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[State]:
    """Within it the model may be run; then it and all generators are as they were."""
    state = State(model)
    python, numpy = random.getstate(), sys.modules.get("numpy")
    numpys = numpy.random.get_state() if numpy is not None else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield state
        finally:
            state.restore()
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(numpys)


@dataclass(frozen=True)
class _Held:
    """A tensor of a module, and its values at the start."""

    tensor: Tensor | None
    values: Tensor | None

    def differs(self, now: Tensor | None) -> bool:
        if self.tensor is None or now is None:
            return self.tensor is not now
        assert self.values is not None
        same = now.shape == self.values.shape and now.dtype == self.values.dtype
        return not (same and bool(torch.eq(now, self.values).logical_or(now != now).all()))


def check_made(model: nn.Module) -> None:
    """Refuse a model of which some weights have no size yet.

    Raises:
        SpaceError: Names a lazy module.
    """
    for name, module in model.named_modules():
        if any(tensor is not None and is_lazy(tensor) for tensor in _tensors(module).values()):
            raise SpaceError(
                f"{name} ({type(module).__name__}): a lazy module has no weights before its first "
                "call; say its sizes"
            )


class State:
    """A model's state when this was made."""

    def __init__(self, model: nn.Module) -> None:
        check_made(model)
        self.modules = dict(model.named_modules())
        self.tensors: dict[nn.Module, dict[str, _Held]] = {}
        self.attributes = {m: dict(vars(m)) for m in self.modules.values()}
        for module in self.modules.values():
            held = self.tensors[module] = {}
            for key, tensor in _tensors(module).items():
                held[key] = _Held(tensor, None if tensor is None else tensor.detach().clone())

    def restore(self) -> None:
        """Make the model what it was."""
        for module, attributes in self.attributes.items():
            vars(module).clear()
            vars(module).update(attributes)
            for key, held in self.tensors[module].items():
                store = module._buffers if key in module._buffers else module._parameters
                if held.differs(store.get(key)) and held.tensor is not None:
                    assert held.values is not None
                    held.tensor.data.copy_(held.values)
                store[key] = held.tensor

    def changed_tensors(self) -> tuple[str, nn.Module, list[str]] | None:
        """The first module whose tensors are not what they were, its name, and theirs."""
        for name, module in self.modules.items():
            now, held = _tensors(module), self.tensors[module]
            changed = [key for key in held if held[key].differs(now.get(key))]
            changed += [key for key in now if key not in held]
            if changed:
                return name, module, changed
        return None


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**module._parameters, **module._buffers}


def marks(model: nn.Module) -> dict[tuple[str, str], object]:
    """What tells whether an attribute of a module was set or changed, by module and attribute."""
    return {
        (name, key): _mark(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in ("_parameters", "_buffers", "_modules") and not key.startswith("_forward")
    }


def _mark(value: Any) -> object:
    if isinstance(value, _KEPT):
        return value
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, list | tuple):
        return tuple(map(_mark, value))
    if isinstance(value, dict):
        return tuple((repr(key), _mark(each)) for key, each in value.items())
    return id(value)
