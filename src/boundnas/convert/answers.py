"""What Python's own functions answer of recorded values, as they would of tensors."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor

_PYTORCH = f"{Path(torch.__file__).parent}/"


@contextmanager
def of_tensors(is_record: Callable[[Any], bool]) -> Iterator[None]:
    """Within it a record of a tensor is one for ``isinstance``, and ``len`` of it is recorded.

    A record cannot say so itself: PyTorch's own code would take it for a tensor, and Python makes a
    number of every length.

    Args:
        is_record: Whether an object is the record of a tensor.
    """
    import torch._dynamo  # which keeps what Python's own functions are when it is imported

    ask, count, ask_script = builtins.isinstance, builtins.len, torch.jit.isinstance

    def answered(x: Any, kinds: Any) -> bool:
        return ask(x, kinds) or (
            is_record(x) and issubclass(Tensor, kinds) and not _is_pytorch(sys._getframe(1).f_code)
        )

    def counted(x: Any) -> Any:
        return x.shape[0] if is_record(x) else count(x)

    def answered_in_script(x: Any, kinds: Any) -> bool:
        return kinds is Tensor if is_record(x) else ask_script(x, kinds)

    torch.jit.isinstance = answered_in_script
    setattr(builtins, "isinstance", answered)  # noqa: B010
    setattr(builtins, "len", counted)  # noqa: B010
    try:
        yield
    finally:
        builtins.isinstance, builtins.len = ask, count
        torch.jit.isinstance = ask_script


def _is_pytorch(code: CodeType) -> bool:
    """Whether PyTorch itself asks, but for ``torch.is_tensor``."""
    return code.co_filename.startswith(_PYTORCH) and code is not torch.is_tensor.__code__
