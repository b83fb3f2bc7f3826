"""The weights file: a network's weights and statistics as safetensors, of a size that is known.

The header of such a file is JSON, in which blanks mean nothing. Each tensor's entry is padded to a
width that depends on its name alone, not on how many digits its shape and its place have. So the
size of the file is a sum over the tensors, and a cost can be exact about it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls each type."""

AROUND = 16
"""Bytes of a file that are no tensor's: the length of the header, and its braces."""

_ROOM = 200
"""Bytes of an entry beside its name: type, up to eight dimensions, and the place of the values."""


def entry_size(name: str) -> int:
    """Bytes that a tensor's entry in the header takes, a multiple of 8."""
    return -(-(len(_quoted(name)) + _ROOM) // 8) * 8


def weights_file(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a weights file: ``AROUND`` bytes, and of each tensor its entry and values.

    Args:
        tensors: By name, such as ``net.state_dict()``.

    Raises:
        ValueError: A type that safetensors does not have, or more than eight dimensions.
    """
    entries, values, end = [], [], 0
    # The largest elements first, so that each tensor begins at a multiple of its elements' size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for number, (name, tensor) in enumerate(ordered, 1):
        if tensor.dtype not in _TYPES or tensor.dim() > 8:
            raise ValueError(f"{name}: no tensor of {tensor.dtype} and {tensor.dim()} dimensions")
        values.append(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8))
        place = [end, end := end + values[-1].numel()]
        entry = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        comma = "," if number < len(ordered) else ""
        entries.append(f"{_quoted(name)}:{json.dumps(entry)}{comma}".ljust(entry_size(name)))
    header = "{" + "".join(entries) + "}".ljust(AROUND - 9)
    content = [struct.pack("<Q", len(header)), header.encode()]
    return b"".join([*content, *(each.numpy().tobytes() for each in values)])


def _quoted(name: str) -> str:
    return json.dumps(name)
