"""The formats of a network's file: how each is written, and how it is run again."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from boundnas.errors import ExportError
from boundnas.nested import Inputs, leaves, mapped

Format = Literal["onnx", "pt2"]


def input_names(example: Inputs) -> list[str]:
    """What the inputs of a file are called: ``images``, ``input``, or by their place.

    Example:
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
        with quiet():
            program = torch.export.export(net, (images,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export has no common base of its errors
        raise ExportError(
            f"torch.export cannot follow this network: {str(error).splitlines()[0]}"
        ) from error
    for node in program.graph.nodes:
        for origin in ("stack_trace", "from_node"):  # paths of source files, addresses in memory
            node.meta.pop(origin, None)
    return program


def _write_pt2(program: torch.export.ExportedProgram, path: Path, names: list[str]) -> None:
    archive = BytesIO()  # into a file, it would be named after the partial one inside
    torch.export.save(program, archive)
    path.write_bytes(archive.getvalue())


def _run_pt2(path: Path, images: Inputs) -> Tensor:
    with torch.no_grad():
        output: Tensor = torch.export.load(path).module()(images)
        return output


def _write_onnx(program: torch.export.ExportedProgram, path: Path, names: list[str]) -> None:
    written = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        input_names=names,
        output_names=["logits"],
    )
    assert written is not None
    written.save(path)


def _run_onnx(path: Path, images: Inputs) -> Tensor:
    import onnxruntime  # takes long to import, and only an export needs it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = zip(session.get_inputs(), leaves(images), strict=True)
    return torch.from_numpy(session.run(None, {i.name: x.numpy() for i, (_, x) in given})[0])


WRITERS: dict[
    str,
    tuple[
        Callable[[torch.export.ExportedProgram, Path, list[str]], None],
        Callable[[Path, Inputs], Tensor],
    ],
] = {".onnx": (_write_onnx, _run_onnx), ".pt2": (_write_pt2, _run_pt2)}
"""How a file of each suffix is written, and how it is run."""


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporters warn about their own insides; nothing a user could act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
