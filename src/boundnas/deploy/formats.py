"""The formats of a network's file: how each is written, and how it is run again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

import torch
from torch import Tensor, nn

from boundnas.errors import BoundNASError, ExportError
from boundnas.extras import require
from boundnas.latency.onnx_file import FourAxes, quiet
from boundnas.nested import Inputs, leaves, mapped
from boundnas.store.files import cannot_write

Format = Literal["onnx", "pt2", "int8", "safetensors"]

FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "pt2": "model.pt2",
    "int8": "model.int8.onnx",
    "safetensors": "model.safetensors",
}
"""The name of the file of each format in the folder of a network."""


def require_formats(formats: Iterable[Format]) -> None:
    """Refuse formats whose libraries are missing.

    Raises:
        ExtraError: Says how to install them.
    """
    for name in formats:
        if name in ("onnx", "int8"):
            require(f"the format {name}", "onnx", "onnxruntime", "onnxscript")


def input_names(example: Inputs) -> list[str]:
    """What the inputs of a file are called: ``images``, ``input``, or by their place.

    Examples:
        >>> input_names({"ids": torch.zeros(3), "mask": torch.zeros(3)}), input_names((
        ...     torch.zeros(3), torch.zeros(3)))
        (['ids', 'mask'], ['input_0', 'input_1'])
    """
    if isinstance(example, Tensor):
        return ["images" if example.dim() == 3 and example.is_floating_point() else "input"]
    words = [re.sub(r"\W+", "_", name).strip("_") for name, _ in leaves(example)]
    return [f"input_{word}" if word[:1].isdigit() else word for word in words]


def traced(net: nn.Module, images: Inputs) -> torch.export.ExportedProgram:
    """The traced network, without what tells one machine, or one time, from another."""
    batch = torch.export.Dim("batch")
    shapes = (mapped(lambda _: {0: batch}, images),)
    try:
        with quiet(), FourAxes():
            program = torch.export.export(net, (images,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export has no common base of its errors
        raise ExportError(f"torch.export cannot follow this network: {_reason(error)}") from error
    for node in program.graph.nodes:
        for origin in ("stack_trace", "from_node"):  # paths of source files, addresses in memory
            node.meta.pop(origin, None)
    return program


def _write_pt2(
    program: torch.export.ExportedProgram, path: Path, names: list[str], output: str
) -> None:
    archive = BytesIO()  # into a file, it would be named after the partial one inside
    torch.export.save(program, archive)
    path.write_bytes(archive.getvalue())


def _opened_pt2(path: Path) -> Callable[[Inputs], Tensor]:
    module: Callable[[Inputs], Tensor] = torch.export.load(path).module()
    return torch.no_grad()(module)


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, names: list[str], output: str
) -> None:
    with torch.no_grad():  # by which PyTorch takes attention apart, whose layout follows it
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=[output],
        )
    assert written is not None
    written.save(path)


def _opened_onnx(path: Path) -> Callable[[Inputs], Tensor]:
    return opened(path.read_bytes())


def opened(onnx: bytes) -> Callable[[Inputs], Tensor]:
    """What the content of an ONNX file computes, on as many threads as PyTorch uses."""
    import onnxruntime  # takes long to import, and only an export needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def run(images: Inputs) -> Tensor:
        given = zip(session.get_inputs(), leaves(images), strict=True)
        return torch.from_numpy(session.run(None, {i.name: x.numpy() for i, (_, x) in given})[0])

    return run


WRITERS: dict[
    str,
    tuple[
        Callable[[torch.export.ExportedProgram, Path, list[str], str], None],
        Callable[[Path], Callable[[Inputs], Tensor]],
    ],
] = {".onnx": (_write_onnx, _opened_onnx), ".pt2": (_write_pt2, _opened_pt2)}
"""How a file of each suffix is written, and how it is opened to be run."""


@contextmanager
def refusing(path: Path, size: int) -> Iterator[None]:
    """Within it exporters and runtimes are quiet, and their failures are ours.

    Args:
        path: The file that is made, for messages.
        size: About how many bytes it needs.

    Raises:
        ExportError: No such file can be made of the network.
        RunError: The disk refuses what is written on the way.
    """
    try:
        with quiet():
            yield
    except (BoundNASError, MemoryError):
        raise
    except OSError as error:
        raise cannot_write(Path(gettempdir(), path.name), size, error) from error
    except Exception as error:  # of the writers and the runtimes, which have no common base
        raise ExportError(
            f"{path}: no such file can be made of this network: {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of an error's own cause: the exporter says no more than that it failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]
