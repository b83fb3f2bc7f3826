"""The compiled kernels beside this file, where the package was installed with a C compiler."""

from __future__ import annotations

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_ARGUMENTS = {
    "depthwise_weight_gradient": [_POINTER] * 3 + [_LONG] * 5 + [_INT],
    "inner_product": [_POINTER] * 3 + [_LONG, _FLOAT, _INT],
    "pointwise": [_POINTER] * 2 + [_LONG, _POINTER] + [_LONG] * 3 + [_INT],
    "input_products": [_POINTER] * 3
    + [_LONG, _POINTER, _LONG, _POINTER]
    + [_LONG] * 4
    + [_FLOAT, _INT],
    "weight_products": [_POINTER] * 3 + [_LONG, _POINTER] + [_LONG] * 3 + [_INT],
    "batch_moments": [_POINTER] * 3 + [_LONG] * 2 + [_INT],
    "batch_norm_forward": [_POINTER] * 6 + [_LONG] * 2 + [_FLOAT] + [_INT] * 2,
    "batch_norm_backward": [_POINTER] * 9 + [_LONG] * 2 + [_INT] * 2,
    "activation_products": [_POINTER] * 8 + [_LONG] * 2 + [_FLOAT, _INT],
    "scale_gradients": [_POINTER] * 5 + [_LONG] * 3 + [_INT],
}


def _load() -> ctypes.CDLL | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_native{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            for name, arguments in _ARGUMENTS.items():
                getattr(library, name).argtypes = arguments
            return library
    return None


_LIBRARY = _load()


def available() -> bool:
    """Whether the kernels were built; without them PyTorch does the work."""
    return _LIBRARY is not None


def takes(x: Tensor) -> bool:
    """Whether the kernels compute on a map, channels-last, or on rows: float32, on the CPU."""
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return _computable(x) and x.is_contiguous(memory_format=layout)


def takes_flat(x: Tensor) -> bool:
    """Whether the kernels compute on a weight or its gradient: float32, on the CPU, no gaps."""
    return _computable(x) and x.is_contiguous()


def _computable(x: Tensor) -> bool:
    return (
        _LIBRARY is not None
        and x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel on the memory of its tensors, with PyTorch's number of threads.

    None stands for a result that is not wanted.

    Raises:
        MemoryError: There was no memory for its working space.
    """
    values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    if getattr(_LIBRARY, name)(*values, torch.get_num_threads()):
        raise MemoryError(f"no memory for the working space of {name}")
